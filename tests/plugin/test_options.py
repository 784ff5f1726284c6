from __future__ import annotations

from pathlib import Path

import pytest

from embedcore.plugin.options import OPTIONS, Options

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "test_models.py"


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
        "--embed-executor=slurm",
        "--embed-executor=ray://",
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


def test_weights_that_the_disk_cannot_hold_end_the_run_before_the_first_download(run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("embedcore.measure.forecast.free_bytes", lambda folder: 10**9)
    outcome = run("--embed-device=cpu", weights="auto", roster="resnet18.a1_in1k,vgg11.tv_in1k")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    line = "*the weights of 2 models take about 578 MB, and * has 1.00 GB free: select fewer models *--embed-force*"
    outcome.stderr.fnmatch_lines([line])


def test_force_begins_although_the_disk_cannot_hold_the_weights(run, monkeypatch):
    monkeypatch.setattr("embedcore.measure.forecast.Forecast.lacking", "too little room")
    assert run(weights="random", roster="test_vit.r160_in1k").ret == pytest.ExitCode.USAGE_ERROR
    assert run("--embed-force", weights="random", roster="test_vit.r160_in1k").ret == pytest.ExitCode.OK


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--embed-datset=x", "ERROR: unknown option --embed-datset: did you mean --embed-dataset?"),
        ("--embed-quux", "ERROR: unknown option --embed-quux"),
    ],
)
def test_an_unknown_option_is_reported_with_the_closest(pytester, argument, message):
    outcome = pytester.runpytest_inprocess(argument)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR and outcome.errlines[0] == message


def test_an_unknown_option_of_addopts_is_reported(pytester):
    pytester.makeini("[pytest]\naddopts = --embed-datset=x")
    outcome = pytester.runpytest_inprocess()
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR and "--embed-dataset?" in outcome.errlines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--embed-dataset=nowhere",), "no such folder of images: */nowhere; *"),
        (("--embed-dataset=csv:nowhere.csv",), "no such csv file: */nowhere.csv"),
        (("--embed-weights=nowhere",), "weights 'nowhere': not 'auto' or 'random', and no such folder"),
        (("--embed-roster=local,nowhere.toml",), "roster 'nowhere.toml': no such file"),
    ],
)
def test_a_wrong_path_is_reported_before_torch_is_imported(pytester, arguments, message):
    pytester.makepyfile(test_models=BENCHMARK.read_text())
    pytester.makeconftest(
        "import sys\ndef pytest_unconfigure():\n    print('heavy:', {'torch', 'timm'} & {*sys.modules})"
    )
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines([f"ERROR: {message}"])
    outcome.stdout.fnmatch_lines(["heavy: set()"])
