"""The names of the engines, and which precision, device and memory layout each of them has."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from os import environ
from types import MappingProxyType

from embedcore.errors import UsageError, option

FOLDER = "engines"  # within the cache folder
FACTS = "facts.json"
"""What determines an exported model, in its folder."""

EAGER = "eager"
COMPILE = "compile"
ONNXRUNTIME = "onnxruntime"
OPENVINO = "openvino"
ENGINES = (EAGER, COMPILE, ONNXRUNTIME, OPENVINO)
MODES = ("default", "reduce-overhead", "max-autotune")
"""Modes of torch.compile, written after a colon: ``compile:max-autotune``."""

INT8 = "int8"
PRECISIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        EAGER: ("fp32", "bf16", "fp16"),
        COMPILE: ("fp32", "bf16", "fp16"),
        ONNXRUNTIME: ("fp32", INT8),
        OPENVINO: ("fp32", "bf16", INT8),
    }
)
"""The precisions of each engine; ``auto`` is the first one for the engines that do not run in torch."""

_PACKAGES: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        ONNXRUNTIME: {"": ("onnxruntime", "onnx", "onnxscript")},
        OPENVINO: {"": ("openvino",), INT8: ("openvino", "nncf")},
    }
)
_EXTRAS = {ONNXRUNTIME: "onnx", OPENVINO: "openvino"}


def kind_of(engine: str) -> str:
    """Return the engine's name without a mode.

    >>> kind_of("compile:max-autotune"), kind_of("eager")
    ('compile', 'eager')
    """
    return engine.partition(":")[0]


def in_torch(engine: str) -> bool:
    """Whether torch computes the forward pass: in autocast, in any memory layout, on any device."""
    return kind_of(engine) in (EAGER, COMPILE)


def device_for(engine: str, device: str) -> str:
    """Return the device that ``auto`` means for an engine: engines that do not run in torch run on the CPU.

    >>> device_for("openvino", "auto"), device_for("compile", "auto"), device_for("eager", "cuda:1")
    ('cpu', 'auto', 'cuda:1')
    """
    return device if in_torch(engine) or device != "auto" else "cpu"


def parse_engine(text: str) -> str:
    """Return the engine's name as it is recorded. Raises ValueError.

    >>> parse_engine("compile:default"), parse_engine("compile:max-autotune")
    ('compile', 'compile:max-autotune')
    """
    kind, colon, mode = text.partition(":")
    if kind not in ENGINES:
        raise ValueError(f"choose from {', '.join(ENGINES)}")
    if colon and (kind != COMPILE or mode not in MODES):
        raise ValueError(f"only compile has modes: {', '.join(f'{COMPILE}:{mode}' for mode in MODES)}")
    return kind if mode in ("", MODES[0]) else text


def check_engine(engine: str, precision: str, channels_last: bool | None, device: str) -> None:
    """Raise UsageError for an unknown engine, or one that does not support the precision, memory layout or device."""
    try:
        parse_engine(engine)
    except ValueError as error:
        raise UsageError(f"engine is {engine!r}: {error}") from error
    kind = kind_of(engine)
    named = option("engine", kind)
    if precision != "auto" and precision not in PRECISIONS[kind]:
        having = [name for name, precisions in PRECISIONS.items() if precision in precisions]
        if having:
            raise UsageError(f"{named} has no {precision}: it computes in {', '.join(PRECISIONS[kind])}")
        raise UsageError(f"unknown precision {precision!r}: use auto, {', '.join(PRECISIONS[kind])}")
    if in_torch(engine):
        return
    if device not in ("auto", "cpu"):
        raise UsageError(f"{named} runs on the CPU: use {option('device', 'cpu')}, not {device}")
    if channels_last:
        raise UsageError(f"{named} chooses its own memory layout: leave {option('channels_last')} out")


def check_installed(engine: str, precision: str) -> None:
    """Raise UsageError if a package, or the compiler, that the engine needs is missing."""
    kind = kind_of(engine)
    if kind == COMPILE and not any(map(shutil.which, (environ.get("CXX") or "c++", "g++", "clang++"))):
        raise UsageError(f"{option('engine', kind)} needs a C++ compiler: install g++, or set CXX")
    needed = _PACKAGES.get(kind, {})
    missing = [name for name in needed.get(precision, needed.get("", ())) if importlib.util.find_spec(name) is None]
    if missing:
        extra = f"pip install 'embedcore[{_EXTRAS[kind]}]'"
        raise UsageError(f"{option('engine', kind)} needs the package {missing[0]}, which is not installed: {extra}")
