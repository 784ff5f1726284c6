from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import synthetic_runs as made

from embedcore.compare.limits import DEFAULT, GATE_FILE, Limits, accept, parse_limits, read_limits
from embedcore.errors import UsageError
from embedcore.results.result import Result

MODEL = "vit_tiny.in1k"


def state() -> Result:
    classes = np.repeat(np.arange(20), 5)
    return Result.from_json(made.result(MODEL, classes, made.hits_of(MODEL, classes, 0.6)))


def test_the_defaults_are_the_documented_ones():
    assert parse_limits(DEFAULT) == {
        "acc": 0.005, "acc5": 0.01, "view_recall": 0.005, "view_recall5": 0.01,
        "images_per_s": 0.05, "memory": 0.1, "drift": 1e-3, "status": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("defaults,acc:1pt", "'defaults' is not one of acc.*default"),
        ("default:5%", "'default' is not one of|takes no value"),
        ("speed:5%", "'speed' is not one of acc"),
        ("acc:0.5", "acc takes percentage points, such as 0.5pt, not '0.5'"),
        ("acc", "acc takes percentage points"),
        ("images_per_s:5pt", "images_per_s takes a percentage"),
        ("drift:-1", "drift takes a number"),
        ("drift:nan", "drift takes a number"),
        ("status:1", "status takes no value but off"),
        (" , ", "it names no limit"),
    ],
)
def test_an_invalid_limit_is_one_line(spec, message):
    with pytest.raises(ValueError, match=message):
        parse_limits(spec)


def test_a_file_narrows_limits_for_families_and_models(tmp_path):
    (tmp_path / GATE_FILE).write_text(
        'fail_on = "acc:1pt,status"\n[[limit]]\nfamilies = ["vit"]\nfail_on = "acc:2pt,images_per_s:10%"\n'
        '[[limit]]\nmodels = ["*_tiny.*"]\nfail_on = "status:off"\n'
    )
    limits = read_limits(None, tmp_path)
    assert limits.of("resnet18.in1k", "resnet") == {"acc": 0.01, "status": 0.0}
    assert limits.of(MODEL, "vit") == {"acc": 0.02, "images_per_s": 0.1, "status": math.inf}
    assert read_limits("drift:1e-2", tmp_path).of("a.b", "c") == {"drift": 0.01}, "what is asked for replaces fail_on"
    assert read_limits("memory:5%", tmp_path / "no folder").overall == {"memory": 0.05}


@pytest.mark.parametrize("spec", ["default,acc:1pt", " acc:1pt , default"])
def test_default_changes_one_limit_and_keeps_the_others(tmp_path, spec):
    expected = {**parse_limits(DEFAULT), "acc": 0.01}
    assert parse_limits(spec) == expected
    assert parse_limits("default") == parse_limits(DEFAULT)
    assert read_limits(spec, tmp_path).overall == expected
    (tmp_path / GATE_FILE).write_text(f'fail_on = "{spec}"\n')
    assert read_limits(None, tmp_path).overall == expected


def test_limits_of_which_none_is_of_a_score_of_the_run_are_refused():
    with pytest.raises(UsageError, match="no limit is of a score of these runs: theirs are view_recall, view_recall5"):
        Limits(parse_limits("acc:1pt,acc5:1pt")).on([{"unlabelled": True}])
    both = Limits(parse_limits("acc:1pt,view_recall:2pt"))
    assert both.on([{}]).overall == {"acc": 0.01} and both.on([{}, {"unlabelled": True}]) == both


def test_limits_in_words():
    words = {
        DEFAULT: "acc 0.5 pt, acc5 1 pt, images_per_s 5 %, memory 10 %, drift 0.001, status",
        "acc:0.5pt": "acc 0.5 pt; nothing else is gated",
        "default,acc:off,hit5:2pt": "acc5 1 pt, hit5 2 pt, images_per_s 5 %, memory 10 %, drift 0.001, status; nothing "
        "else is gated",
        "default,hit5:2pt": "acc 0.5 pt, acc5 1 pt, hit5 2 pt, images_per_s 5 %, memory 10 %, drift 0.001, status",
    }
    assert {spec: str(Limits(parse_limits(spec)).on([{}])) for spec in words} == words
    unlabelled = Limits(parse_limits(DEFAULT)).on([{"unlabelled": True}])
    views = "view_recall 0.5 pt, view_recall5 1 pt, images_per_s 5 %, memory 10 %, drift 0.001, status"
    assert str(unlabelled) == views
    some = Limits(parse_limits("default"), [(["vit*"], [], {"acc": 0.1})])
    assert str(some).endswith("status; the gate file has others for some models or families")


def test_a_file_can_be_named(tmp_path):
    path = tmp_path / "ours.toml"
    path.write_text('[[limit]]\nfamilies = ["vit"]\nfail_on = "acc:9pt"\n')
    assert read_limits(str(path), tmp_path).of(MODEL, "vit")["acc"] == 0.09
    assert read_limits(f"{path},acc:1pt", tmp_path).overall == {"acc": 0.01}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fail_on = ", "is not TOML"),
        ("limits = 1", "unknown field `limits`"),
        ('[[limit]]\nfail_on = "acc:x"', "acc takes percentage points"),
        ('[[accepted]]\nmodel = "a.b"', "because"),
        ('[[accepted]]\nmodel = "a.b"\nbecause = "x"\nstatus = "fine"', "status"),
        ("\xff", "is not TOML"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, text, message):
    path = tmp_path / GATE_FILE
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=message) as error:
        read_limits(None, tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_gate_file_that_cannot_be_written_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        accept(tmp_path / "missing" / GATE_FILE, {MODEL: state()}, "why", "run")


def test_accept_writes_what_read_limits_reads_and_keeps_the_rest(tmp_path):
    path = tmp_path / GATE_FILE
    path.write_text('# ours\nfail_on = "acc:1pt"  # a point\n')
    accept(path, {MODEL: state(), "gone.model": None}, 'crop "was" wrong', "timm-1.0.31")
    changed = msgspec.structs.replace(state(), scores={**state().scores, "acc": 0.25})
    accept(path, {MODEL: changed}, "again", "timm-1.0.32")
    text = path.read_text()
    assert text.startswith('# ours\nfail_on = "acc:1pt"  # a point\n') and text.count(f'model = "{MODEL}"') == 1
    accepted = read_limits(None, tmp_path).accepted
    assert accepted["gone.model"].state is None and accepted["gone.model"].because == 'crop "was" wrong'
    assert accepted[MODEL].because == "again" and accepted[MODEL].state.scores["acc"] == 0.25
    assert accepted[MODEL].state.sketch == state().sketch
