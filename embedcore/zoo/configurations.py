"""What a release or an environment of timm says of its pretrained tags, read by an interpreter of its own.

Nothing here imports timm, or torch: the one of this process may be another one than is asked for.
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
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from embedcore.errors import UsageError
from embedcore.files import user_path, written_whole
from embedcore.plain import one_line

READ_SECONDS = 300.0
"""timm and torch take 5 s to import, on a busy machine a minute."""
PIP_SECONDS = 120.0

_VERSION = re.compile(r"\d+(\.\w+)+")


class Configurations(msgspec.Struct, frozen=True):
    """The registry of one timm."""

    timm: str
    """Its version."""
    models: dict[str, dict[str, Any]]
    """Each pretrained tag's configuration; what is absent has no value."""
    defaults: dict[str, str]
    """Each architecture's full default tag, "" where it has no weights."""
    renamed: dict[str, str | None]
    """timm's own table: retired name → that of today, None where it was dropped."""


def address_of(cfg: Mapping[str, Any]) -> str:
    """Where timm fetches the weights of a tag: ``repo[/file][@revision]`` on the hub, or a URL; "" where nowhere.

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
    """The registry of the timm that `spec` means.

    `spec`: a version such as ``1.0.15``, whose wheel pip gets into `cache_folder` once; a folder that holds timm; an
    environment's folder, or its interpreter. Raises UsageError, with one line, where it cannot be had or read.
    """
    path, version = user_path(spec), spec.removeprefix("timm==")
    if _VERSION.fullmatch(version) and not path.exists():
        folder = _wheel(version, cache_folder)
        kept = folder / f"configurations-{hashlib.sha256(_source().encode()).hexdigest()[:8]}.json"
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(kept.read_bytes(), type=Configurations)
        text = _read(spec, Path(sys.executable), folder)
        with written_whole(kept) as file:
            file.write(text)
    elif (path / "timm" / "__init__.py").is_file():
        text = _read(spec, Path(sys.executable), path.absolute())
    else:
        python = next(
            (p for p in (path, path / "bin" / "python", path / "Scripts" / "python.exe") if p.is_file()), None
        )
        if python is None:
            raise UsageError(
                f"--timm {spec}: neither a version such as 1.0.15, nor a folder that holds timm, nor an environment or "
                "its interpreter"
            )
        text = _read(spec, python.absolute())
    return msgspec.json.decode(text, type=Configurations)


def _dump(path: str) -> None:
    """Write the registry of the timm that this interpreter has. Runs where there is no embedcore."""
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
    """What `_dump` writes in this interpreter, where timm is taken from `folder` if one is given."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])] if folder else []
    if paths:
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "registry.json"
        code = f"{_source()}\nimport sys; _dump(sys.argv[1])"
        command = [str(python), "-W", "ignore", "-c", code, str(out)]
        try:
            # In an empty folder, which stands before everything else on the path.
            done = subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=READ_SECONDS
            )
            said = done.stderr if done.returncode else ""
            if not said:
                return out.read_bytes()
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
    raise UsageError(f"--timm {spec}: timm cannot be read with {python}: {_last_line(said)}")


def _wheel(version: str, cache_folder: Path) -> Path:
    """The folder with timm of this version alone, from pip's index the first time."""
    folder = cache_folder / "timm" / version
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--timeout=10", "--retries=1", f"timm=={version}"]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
        try:
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=PIP_SECONDS)
            said = done.stderr
        except subprocess.TimeoutExpired:
            said = f"no answer within {PIP_SECONDS:.0f} s"
        wheel = next(Path(scratch).glob("timm-*.whl"), None)
        if wheel is None:
            unreached = " (its index was not reached)" if "connection broken" in said else ""
            raise UsageError(f"pip cannot get timm {version}: {_last_line(said)}{unreached}")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(Path(scratch) / "whole")
        with contextlib.suppress(OSError):  # another process was faster
            (Path(scratch) / "whole").rename(folder)
    return folder


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("[notice]")]
    return one_line(lines[-1]).removeprefix("ERROR: ")[:200] if lines else "it said nothing"
