from __future__ import annotations

import importlib.util

import pytest

from embedcore.embed.engines import names
from embedcore.embed.engines.names import check_engine, check_installed, in_torch, parse_engine
from embedcore.errors import UsageError
from embedcore.measure.case import CaseSettings
from embedcore.plugin.options import Options


@pytest.mark.parametrize(
    ("text", "engine"),
    [("eager", "eager"), ("compile", "compile"), ("compile:default", "compile"), ("compile:max-autotune",) * 2],
)
def test_an_engine_is_recorded_under_one_name(text, engine):
    assert parse_engine(text) == engine


@pytest.mark.parametrize("text", ["", "tensorrt", "eager:default", "onnxruntime:", "compile:fast"])
def test_an_unknown_engine_or_mode_is_refused_with_the_choices(text):
    with pytest.raises(ValueError, match=r"choose from eager, compile|compile:max-autotune"):
        parse_engine(text)


@pytest.mark.parametrize(
    ("engine", "precision", "layout", "device", "words"),
    [
        ("eager", "int8", None, "auto", "eager.*has no int8: it computes in fp32, bf16, fp16"),
        ("onnxruntime", "bf16", None, "auto", "has no bf16: it computes in fp32, int8"),
        ("openvino", "fp16", None, "cpu", "has no fp16"),
        ("openvino", "fp32", None, "cuda:1", "runs on the CPU.*not cuda:1"),
        ("onnxruntime", "auto", True, "cpu", "memory layout"),
        ("compile", "fp8", None, "auto", "unknown precision 'fp8'"),
        ("fast", "auto", None, "auto", "choose from eager"),
    ],
)
def test_what_an_engine_does_not_have_is_refused(engine, precision, layout, device, words):
    with pytest.raises(UsageError, match=words):
        check_engine(engine, precision, layout, device)


def test_a_session_records_the_cpu_for_an_engine_that_runs_there():
    """Also on a machine with a card, which ``auto`` means for the others."""
    settings = [("openvino", "auto"), ("onnxruntime", "auto"), ("eager", "auto"), ("eager", "cuda:1")]
    found = [Options.from_values({"engine": e, "device": d}, ("engine", "device")).where for e, d in settings]
    assert found == ["cpu", "cpu", "auto", "cuda:1"]
    assert [CaseSettings(engine=e, device=d).where for e, d in settings] == found


def test_every_engine_takes_each_of_its_precisions():
    for engine, precisions in names.PRECISIONS.items():
        for precision in ("auto", *precisions):
            check_engine(engine, precision, None, "cuda" if in_torch(engine) else "cpu")


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    present = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else present(name))
    with pytest.raises(UsageError, match=r"needs the package nncf.*embedcore\[openvino\]"):
        check_installed("openvino", "int8")
    check_installed("openvino", "fp32")
    check_installed("eager", "fp32")


def test_compile_needs_a_compiler(monkeypatch):
    monkeypatch.setattr(names.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler"):
        check_installed("compile:max-autotune", "fp32")
