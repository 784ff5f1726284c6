from __future__ import annotations

from pathlib import Path

import pytest

from embedcore.plugin.options import OPTIONS, Options


@pytest.fixture
def options(pytester):
    def options(*arguments, **ini):
        pytester.makeini("[pytest]\n" + "\n".join(f"{key} = {value}" for key, value in ini.items()))
        return Options.from_pytest_config(pytester.parseconfig(*arguments))

    return options


def test_defaults_are_those_of_the_contract(options):
    got = options()
    assert (got.dataset, got.split, got.protocol, got.roster) == ("emoji", "auto", "native", "all")
    assert (got.weights, got.point, got.device, got.precision) == ("auto", "pre_logits", "auto", "auto")
    assert (got.batch_size, got.rounds, got.isolation, got.timeout) == ("auto", 10, "process", 3600.0)
    assert (got.max_classes, got.max_per_class, got.seed, got.max_params, got.family) == (None, None, 0, None, ())
    assert got.report is None
    assert got.cache_folder.name == "embedcore"


def test_command_line_before_ini_before_default(options):
    got = options("--embed-rounds=3", embed_rounds="5", embed_batch_size="32", embed_cache="here")
    assert (got.rounds, got.batch_size, got.cache, got.seed) == (3, 32, Path("here"), 0)


def test_families_accumulate_and_the_ini_takes_lines(options):
    assert options("--embed-family=vgg", "--embed-family=vit").family == ("vgg", "vit")
    assert options(embed_family="vgg\n  vit").family == ("vgg", "vit")


@pytest.mark.parametrize(
    "argument",
    [
        "--embed-rounds=0",
        "--embed-batch-size=many",
        "--embed-batch-size=0",
        "--embed-max-classes=-1",
        "--embed-timeout=0",
        "--embed-protocol=native224",
        "--embed-max-params=x",
        "--embed-seed=-1",
        "--embed-seed=9223372036854775808",
        "--embed-seed=x",
    ],
)
def test_a_bad_value_is_a_usage_error_naming_option_and_value(pytester, argument):
    option, _, value = argument.partition("=")
    outcome = pytester.runpytest_inprocess(argument)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in outcome.errlines if "error:" in line]
    assert option in line
    assert value in line
    assert "literal" not in line  # Python's own words


@pytest.mark.parametrize(
    ("key", "value"),
    [("embed_rounds", "0"), ("embed_split", "half"), ("embed_max_params", "x"), ("embed_resume", "maybe")],
)
def test_a_bad_ini_value_names_its_key(options, key, value):
    with pytest.raises(pytest.UsageError, match=f"{key}.*{value}"):
        options(**{key: value})


def test_every_option_is_documented_and_has_an_ini_key(pytester):
    help_text = pytester.runpytest_inprocess("--help").stdout.str()
    for option in OPTIONS:
        assert f"--embed-{option.name}" in help_text
        assert f"embed_{option.name.replace('-', '_')}" in help_text


@pytest.mark.parametrize("ini", [False, True])
def test_folders_may_be_below_the_home_folder(options, monkeypatch, tmp_path, ini):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {"report": "~/r", "cache": "~/c"}
    got = options(
        *(f"--embed-{name}={value}" for name, value in given.items() if not ini),
        **{f"embed_{name}": value for name, value in given.items() if ini},
    )
    assert (got.report, got.cache) == (tmp_path / "r", tmp_path / "c")
