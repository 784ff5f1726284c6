"""Read the registry of a release or an environment of timm, in an interpreter of its own.

Nothing here imports timm or torch: this process may have another timm than the one to read.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from embedcore.errors import UsageError
from embedcore.files import user_path, written_whole
from embedcore.packages import installed, last_line

READ_SECONDS = 300.0  # importing timm and torch takes 5 s, on a busy machine a minute
PIP_SECONDS = 120.0

_VERSION = re.compile(r"\d+(\.\w+)+")


class Configurations(msgspec.Struct, frozen=True):
    """The registry of one timm."""

    timm: str
    """Its version."""
    models: dict[str, dict[str, Any]]
    """Pretrained tag → configuration, without absent values."""
    defaults: dict[str, str]
    """Architecture → full default tag, "" if it has no weights."""
    renamed: dict[str, str | None]
    """timm's own table: retired name → today's name, None if dropped."""


def address_of(cfg: Mapping[str, Any]) -> str:
    """Return where timm fetches the weights of a tag: ``repo[/file][@revision]`` on the hub, or a URL; "" if nowhere.

    >>> address_of({"hf_hub_id": "a/b@v2", "hf_hub_filename": "net.bin", "url": "https://host/net.pth"})
    'a/b/net.bin@v2'
    """
    if cfg.get("hf_hub_id"):
        repo, at, revision = str(cfg["hf_hub_id"]).partition("@")
        file = cfg.get("hf_hub_filename")
        return repo + (f"/{file}" if file else "") + at + revision
    url = cfg.get("url") or ""
    return str(url[0] if isinstance(url, (list, tuple)) else url)  # timm allows a pair (URL, file name)


def read_configurations(spec: str, cache_folder: Path) -> Configurations:
    """Return the registry of the timm that ``spec`` means.

    spec: a version such as ``1.0.15``, which pip installs into ``cache_folder`` once; a folder that contains timm; an
        environment's folder, or its interpreter.

    Raises UsageError, with one line, if it cannot be found or read.
    """
    path, version = user_path(spec), spec.removeprefix("timm==")
    if _VERSION.fullmatch(version) and not path.exists():
        target = cache_folder / "timm" / version
        folder = installed([f"timm=={version}"], target, only_wheels=True, seconds=PIP_SECONDS)
        cached = folder / f"configurations-{hashlib.sha256(_source().encode()).hexdigest()[:8]}.json"
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(cached.read_bytes(), type=Configurations)
        text = _read(spec, Path(sys.executable), folder)
        with written_whole(cached) as file:
            file.write(text)
    elif (path / "timm" / "__init__.py").is_file():
        text = _read(spec, Path(sys.executable), path.absolute())
    else:
        candidates = (path, path / "bin" / "python", path / "Scripts" / "python.exe")
        python = next(filter(Path.is_file, candidates), None)
        if python is None:
            raise UsageError(
                f"--timm {spec}: neither a version such as 1.0.15, nor a folder that contains timm, nor an environment "
                "or its interpreter"
            )
        text = _read(spec, python.absolute())
    return msgspec.json.decode(text, type=Configurations)


def _dump(path: str) -> None:
    """Write the registry of this interpreter's timm. Must not need embedcore."""
    import json
    import pathlib

    import timm
    import timm.models

    def cfg_of(model: str) -> Any:
        try:
            return timm.models.get_pretrained_cfg(model)
        except RuntimeError:  # an architecture without any configuration
            return None

    tags = timm.list_models(pretrained=True)
    defaults = {}
    for architecture in timm.list_models():
        cfg = cfg_of(architecture)
        name = f"{architecture}.{cfg.tag}" if cfg and cfg.tag else architecture
        defaults[architecture] = name if timm.is_model_pretrained(name) else ""
    registry = {
        "timm": timm.__version__,
        "models": {tag: cfg_of(tag).to_dict() for tag in tags},
        "defaults": defaults,
        "renamed": dict(getattr(timm.models._registry, "get_deprecated_models", dict)()),
    }
    pathlib.Path(path).write_text(json.dumps(registry, default=str))


def _source() -> str:
    return f"from __future__ import annotations\nfrom typing import Any\n{inspect.getsource(_dump)}"


def _read(spec: str, python: Path, folder: Path | None = None) -> bytes:
    """Return what `_dump` writes in this interpreter, with timm from ``folder`` if one is given."""
    environment = dict(os.environ)
    before = environment.pop("PYTHONPATH", "")
    if folder is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), before)))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "registry.json"
        command = [str(python), "-W", "ignore", "-c", f"{_source()}\nimport sys; _dump(sys.argv[1])", str(out)]
        try:
            # The current folder is first on the path: an empty one.
            done = subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=READ_SECONDS
            )
            if not done.returncode:
                return out.read_bytes()
            fault = done.stderr
        except (OSError, subprocess.TimeoutExpired) as error:
            fault = str(error)
    raise UsageError(f"--timm {spec}: timm cannot be read with {python}: {last_line(fault)}")
