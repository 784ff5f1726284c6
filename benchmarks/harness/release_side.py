"""Embed fixed images with the architectures of the timm on Python's path; a process of `releases.py`.

    python benchmarks/harness/release_side.py JOBS JOURNAL

JOBS is a JSON file: ``{"models": [...], "before": {model: line of the journal}}``. Each model adds a line to JOURNAL;
with ``"traces": {model: [size, by_name]}`` it is traced into a file beside JOBS instead. Weights depend on the name and
shape of each tensor only, so they are equal in every release. A model whose executed code is the same as in ``before``
is not run again.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib
import inspect
import json
import sys
import time
import types
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import timm
import torch
from torch import nn

from embedcore.embed.sketch import sketch_of
from embedcore.embed.trace import Trace, trace
from embedcore.zoo.points import point_forward, pool

IMAGES = 8
SIZES = (96, 112, 128, 160, 192, 224, 256, 288, 384)
"""Edge lengths of the input: the first one that the architecture accepts."""

BLOCK = np.random.Generator(np.random.PCG64(0)).standard_normal(1 << 21).astype(np.float32)
RANDOM_FILLS = ("uniform_", "normal_", "trunc_normal_", "kaiming_normal_", "xavier_uniform_", "orthogonal_", "erfinv_")

REGISTRY = ("_registry", "_pretrained")
"""Files of timm whose code finds a configuration, which is compared by itself."""


def fixed(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return normal values of this shape that depend on `key` alone: a part of a fixed block, repeated if needed."""
    count = int(np.prod(shape, dtype=np.int64))
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little") % (1 << 20)
    part = BLOCK[start : start + count]
    return (part if len(part) == count else np.resize(BLOCK[start:], count)).reshape(shape)


def images(size: int) -> torch.Tensor:
    """Return normalised images [8, 3, size, size]: smooth patterns with some noise."""
    coarse = torch.from_numpy(fixed("coarse", (IMAGES, 3, 7, 7)).copy())
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    return smooth + 0.2 * torch.from_numpy(fixed("fine", (IMAGES, 3, size, size)).copy())


def fill(module: nn.Module, *, by_name: bool = True) -> str:
    """Give a module its fixed weights; return a digest of the names and shapes of its tensors.

    With ``by_name`` false the values depend on the shape and the place among the tensors of that shape, which serves
    releases that name them differently.
    """
    digest, seen = hashlib.sha256(), dict[tuple[int, ...], int]()
    statistics = [(name, value) for name, value in module.named_buffers() if name.rpartition(".")[2] in _STATISTICS]
    for name, value in [*module.named_parameters(), *statistics]:
        shape = tuple(value.shape)
        digest.update(f"{name} {shape}\n".encode())
        seen[shape] = seen.get(shape, 0) + 1
        values = fixed(name if by_name else f"{shape} {seen[shape]}", shape)
        last = name.rpartition(".")[2]
        if last == "running_var":
            values = 1 + 0.1 * np.abs(values)
        elif len(shape) < 2:
            values = (last == "weight" or "gamma" in last or "scale" in last) + 0.1 * values
        else:
            values = values * (np.prod(shape[1:]) ** -0.5 if last.endswith("weight") else 0.1)
        value.data.copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
    return digest.hexdigest()[:16]


_STATISTICS = ("running_mean", "running_var")


def skip_initialisation() -> None:
    """Make torch's random fills do nothing: all parameters get fixed values afterwards."""

    def unchanged(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return tensor

    for name in RANDOM_FILLS:
        for owner in (torch.Tensor, nn.init):
            if hasattr(owner, name):
                setattr(owner, name, unchanged)


class Recorder:
    """Records which functions of timm run."""

    def __init__(self) -> None:
        self.codes: set[types.CodeType] = set()
        self._folder = str(Path(timm.__file__).parent)

    def __enter__(self) -> Recorder:
        def called(frame: types.FrameType, event: str, arg: object) -> None:
            self.codes.add(frame.f_code)

        sys.settrace(called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def places(self) -> set[str]:
        """Return ``module:qualified.name`` of each, without nested functions, which are part of the outer ones."""
        found = set()
        for code in tuple(self.codes):
            if code.co_filename.startswith(self._folder) and "<" not in code.co_qualname:
                relative = Path(code.co_filename).relative_to(Path(self._folder).parent).with_suffix("")
                if relative.name not in REGISTRY and "init_weights" not in code.co_name:
                    found.add(f"{'.'.join(relative.parts)}:{code.co_qualname}")
        return found


@functools.cache
def digest_of(place: str) -> str:
    """Return a digest of a function's code, defaults and the constants that it names, or of a class; "" if absent."""
    module_name, _, name = place.partition(":")
    try:
        module = importlib.import_module(module_name.removesuffix(".__init__"))
        owner: Any = module
        for part in name.split("."):
            found = inspect.getattr_static(owner, part)
            owner, holder = found, owner
    except (ImportError, AttributeError):
        return ""
    if isinstance(owner, type):
        overriding = [name for name in sorted(vars(owner)) if any(name in vars(base) for base in owner.__mro__[1:])]
        text = f"{[base.__qualname__ for base in owner.__mro__]} {overriding}"
    else:
        function = getattr(owner, "__func__", None) or getattr(owner, "fget", None) or owner
        function = inspect.unwrap(function)
        if not isinstance(function, types.FunctionType):
            return ""
        text = "\n".join(_function_text(function))
        if isinstance(holder, type):
            text += "".join(f"{key}={plain(value)}" for key, value in sorted(vars(holder).items()) if _is_data(value))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _function_text(function: types.FunctionType) -> Iterator[str]:
    yield _code_text(function.__code__)
    yield plain(function.__defaults__) + plain(function.__kwdefaults__)
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if (
            value is not None
            and name not in ("_logger", "default_cfgs")
            and (_is_data(value) or isinstance(value, functools.partial | torch.jit.ScriptFunction))
        ):
            yield f"{name}={plain(value)}"


def _is_data(value: object) -> bool:
    return isinstance(value, int | float | str | tuple | list | dict | set | frozenset | bytes)


def _code_text(code: types.CodeType) -> str:
    first, *others = code.co_consts or (None,)
    # The first constant may be a docstring, which does not change what a function does.
    kept = [None if isinstance(first, str) and "\n" in first else first, *others]
    constants = [_code_text(constant) if isinstance(constant, types.CodeType) else plain(constant) for constant in kept]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {constants}"


def plain(value: object) -> str:
    """Return a text of a value without addresses in memory."""
    if isinstance(value, functools.partial):
        return f"partial({plain(value.func)}, {plain(value.args)}, {plain(value.keywords)})"
    if isinstance(value, torch.jit.ScriptFunction):
        return str(value.code)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {plain(part)}" for key, part in value.items() if key != "__doc__") + "}"
    if isinstance(value, tuple | list | set | frozenset):
        parts = [plain(part) for part in value]
        return f"({', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)})"
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value) if isinstance(value, int | float | complex | str | bytes | None) else type(value).__qualname__


def pack(value: object) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


def unpack(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(text)))


def configuration(architecture: str) -> str:
    """Return the part of the default configuration that shapes a model."""
    cfg = timm.models.get_pretrained_cfg(architecture)
    names = ("num_classes", "input_size", "pool_size", "fixed_input_size", "in_chans", "first_conv", "classifier")
    return json.dumps([getattr(cfg, name, None) for name in names])


def unchanged(before: Mapping[str, Any], architecture: str) -> bool:
    """Return whether this timm runs the same code as the one that made `before`."""
    if "code" not in before or before["configuration"] != configuration(architecture):
        return False
    return all(digest and digest_of(place) == digest for place, digest in unpack(before["code"]).items())


def candidates(architecture: str, first: int | None) -> Iterator[tuple[int, nn.Module]]:
    """Yield input sizes, small first, each with the module built for it."""
    entry = timm.models.model_entrypoint(architecture)
    flexible: nn.Module | None = None
    for size in [first] if first else SIZES:
        if flexible is None:
            try:
                yield size, entry(pretrained=False, img_size=size)
                continue
            except TypeError as error:
                if "img_size" not in str(error):
                    continue
                flexible = entry(pretrained=False)
            except (AssertionError, ValueError, RuntimeError):
                continue
        yield size, flexible
    if not first:
        yield timm.models.get_pretrained_cfg(architecture).input_size[-1], entry(pretrained=False)


def embedded(architecture: str, first: int | None) -> dict[str, Any]:
    """Embed the images; return the size, the embeddings' sketch and the code that ran, or why it cannot be done."""
    begin, why = time.perf_counter(), "no size is accepted"
    torch.manual_seed(0)
    with Recorder() as recorder:
        for size, module in candidates(architecture, first):
            keys = fill(module.eval())
            try:
                output = pool(point_forward(module, "pre_logits", architecture)(images(size)), module)[0]
            except (AssertionError, ValueError, RuntimeError, IndexError) as error:
                why = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
                continue
            classes = {c for part in module.modules() for c in type(part).__mro__ if c.__module__.startswith("timm")}
            places = recorder.places() | {f"{c.__module__}:{c.__qualname__}" for c in classes}
            sketch = sketch_of(output.float().numpy())
            return {
                "size": size,
                "dim": output.shape[1],
                "sketch": base64.b64encode(sketch.tobytes()).decode(),
                "finite": bool(np.isfinite(sketch).all()),
                "keys": keys,
                "configuration": configuration(architecture),
                "code": pack({place: digest_of(place) for place in sorted(places)}),
                "seconds": round(time.perf_counter() - begin, 2),
            }
    return {"error": why, "seconds": round(time.perf_counter() - begin, 2)}


def traced(architecture: str, size: int, *, by_name: bool) -> Trace:
    """Return the trace of the images; see `fill` for `by_name`."""
    torch.manual_seed(0)
    module = next(candidates(architecture, size))[1]
    fill(module.eval(), by_name=by_name)
    forward = point_forward(module, "pre_logits", architecture)
    backbone = SimpleNamespace(module=module, embed=lambda x: pool(forward(x), module)[0])
    return trace(backbone, images(size), {})  # type: ignore[arg-type]


@torch.no_grad()
def main(jobs_path: str, journal_path: str) -> None:
    """Work off the jobs."""
    torch.set_num_threads(1)
    skip_initialisation()
    jobs = json.loads(Path(jobs_path).read_text())
    for model, (size, by_name) in jobs.get("traces", {}).items():
        path = Path(jobs_path).parent / "traces" / f"{timm.__version__}-{model}.json"
        path.parent.mkdir(exist_ok=True)
        try:
            path.write_bytes(msgspec.json.encode(traced(model, size, by_name=by_name)))
        except Exception as error:
            print(f"timm {timm.__version__}: {model} cannot be traced: {error}", file=sys.stderr)
    with Path(journal_path).open("a", encoding="utf-8") as journal:
        for model in jobs["models"]:
            before = jobs["before"].get(model, {})
            line = {"release": timm.__version__, "model": model}
            if not timm.is_model(model):
                line |= {"absent": True}
            elif before and unchanged(before, model):
                line |= {"same": before["release"]}
            else:
                try:
                    line |= embedded(model, before.get("size"))
                    if "error" in line and before.get("size"):
                        line = {**line, "smaller": before["size"], **embedded(model, None)}
                except Exception as error:  # a model that cannot be built is a line too
                    line |= {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"}
            journal.write(json.dumps(line) + "\n")
            journal.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
