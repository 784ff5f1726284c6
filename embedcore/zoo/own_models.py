"""The user's own models, as a roster file in TOML lists them: weights for an architecture, a factory, or embeddings."""

from __future__ import annotations

import codecs
import difflib
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tomlkit
from tomlkit.exceptions import TOMLKitError

from embedcore.errors import UsageError
from embedcore.files import sha256_of
from embedcore.plain import one_line, short_repr
from embedcore.zoo import registry
from embedcore.zoo.folder import SUFFIXES, suffix_of
from embedcore.zoo.tags import KEYWORDS, all_tags, matching

FAMILY = "own"
"""Slug of the family of own models that name no other."""

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", max_length=100)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
_Pixels = Annotated[int, msgspec.Meta(gt=0, le=10_000)]
_Level = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Spread = Annotated[float, msgspec.Meta(gt=0)]
_Filter = Annotated[str, msgspec.Meta(pattern="^(nearest|bilinear|bicubic|box|hamming|lanczos)$")]


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """One ``[[model]]`` of a roster file; the fields are its keys. Picklable.

    It has ``arch`` and ``weights``, or ``factory``, or ``embeddings``. Paths are relative to the roster file's folder.
    """

    name: _Name
    arch: _Text | None = None
    """Architecture or tag of timm; also the source of the input settings that the entry does not set."""
    weights: _Text | None = None
    """File of its weights or of a training checkpoint: safetensors, pth, pt or bin."""
    factory: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")] | None = None
    """``package.module:function``, which returns a torch module: see `embedcore.zoo.factory`."""
    embeddings: _Text | None = None
    """File of float [n, d] as ``numpy.save`` writes it, in the order of ``embedcore check DATASET --list``."""
    input_size: _Pixels | tuple[_Pixels, ...] | None = None
    """The side of a square, [height, width] or [3, height, width]."""
    mean: tuple[_Level, _Level, _Level] | None = None
    std: tuple[_Spread, _Spread, _Spread] | None = None
    crop_pct: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    crop_mode: Annotated[str, msgspec.Meta(pattern="^(center|squash|border)$")] | None = None
    interpolation: _Filter | None = None
    family: _Name | None = None
    """Slug of its leaderboard, an existing one or a new one; `FAMILY` if None."""
    licence: _Text | None = None
    pretraining: _Text | None = None
    checkpoint_key: _Text | None = None
    """The part of ``weights`` to take, such as ``model_ema`` or ``state_dict.encoder_q``; see `zoo.checkpoint`."""
    resample: bool = False
    """Whether timm may resize position embeddings, patch kernels and window tables that do not fit."""
    trust: bool = False
    """Whether ``weights`` may be a pickle with code, which is then run."""
    folders: tuple[str, ...] = ()
    """Not a key: the roster file's folder, then the current folder when it was read. Empty: the current folder."""

    def __repr__(self) -> str:
        return short_repr(self, "folders")

    @property
    def source(self) -> str:
        """The source of its weights in results: ``factory:NAME`` or ``own:FILE``."""
        return f"factory:{self.factory}" if self.factory else f"own:{self.weights or self.embeddings}"

    @property
    def file(self) -> Path | None:
        """Its weights, its embeddings or the source of its factory; None if the last is not found without running it.

        A relative path starts at the roster file's folder.
        """
        if self.factory:
            return _source_of(self.factory.partition(":")[0], [*self.import_folders, *sys.path])
        return Path(self.import_folders[0]) / Path(self.weights or self.embeddings or "").expanduser()

    @property
    def import_folders(self) -> tuple[str, ...]:
        """The folders that are searched first for its factory."""
        return self.folders or (str(Path.cwd()),)

    def make_importable(self) -> None:
        """Let this process import from `import_folders`."""
        sys.path[:0] = [folder for folder in self.import_folders if folder not in sys.path]

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of its input, None if the entry has no ``input_size``."""
        size = (self.input_size,) * 2 if isinstance(self.input_size, int) else self.input_size
        return None if size is None else (size[-2], size[-1])

    @property
    def overlay(self) -> dict[str, Any]:
        """The entries that replace those of timm's configuration of its architecture."""
        names = ("mean", "std", "crop_pct", "crop_mode", "interpolation")
        overlay = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return overlay if self.size is None else overlay | {"input_size": (3, *self.size)}

    def content(self, sha256_of: Callable[[Path], str] = sha256_of) -> str:
        """Return the SHA-256 (hex) of `file`; "" if it cannot be read."""
        try:
            return sha256_of(self.file) if self.file is not None else ""
        except OSError:
            return ""

    def state(self, content: str) -> str:
        """Return ``sha256:`` and 16 hex digits over the entry and the ``content`` of its file."""
        settings = {name: value for name, value in asdict(self).items() if name != "folders"}
        text = json.dumps([settings, content], sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


_KEYS = [field.name for field in fields(OwnModel) if field.name != "folders"]
_INPUT = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation")
_SHARED = ("name", "family", "licence", "pretraining")
_KINDS: Mapping[str, tuple[str, ...]] = {
    "weights": (*_SHARED, "arch", "weights", "checkpoint_key", "resample", "trust", *_INPUT),
    "factory": (*_SHARED, "factory", *_INPUT),
    "embeddings": (*_SHARED, "embeddings"),
}
"""The keys that an entry of each kind may have."""


class _RosterFile(msgspec.Struct, forbid_unknown_fields=True):
    model: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]


def read_own_models(path: Path) -> list[tuple[str, OwnModel | None]]:
    """Return name and model of each entry of a TOML roster file, in order; None for a tag or a glob of timm's models.

    Raises UsageError if the file cannot be read, and for all bad entries at once, a line each.
    """
    entries, known = _entries(path), all_tags()
    folders = tuple(dict.fromkeys([str(path.absolute().parent), str(Path.cwd())]))
    found: list[tuple[str, OwnModel | None]] = []
    all_faults: list[str] = []
    names: dict[str, int] = {}
    for number, entry in enumerate(entries, start=1):
        name = entry.get("name")
        where = f"{path}, model {number}" + (f" ({one_line(name)[:60]!r})" if isinstance(name, str) else "")
        faults = [f"{where}: {fault}" for fault in _faults(entry, folders, known)]
        if not faults and len(entry) > 1 and names.setdefault(str(name), number) != number:
            faults = [f"{where}: name: already used by model {names[str(name)]}"]
        all_faults += faults
        if not faults:
            found.append((str(name), _model(entry, folders) if len(entry) > 1 else None))
    if all_faults:
        raise UsageError("\n".join(all_faults))
    return found


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        data = tomlkit.parse(path.read_bytes().removeprefix(codecs.BOM_UTF8)).unwrap()
        return msgspec.convert(data, _RosterFile).model
    except FileNotFoundError:
        raise UsageError(f"roster {str(path)!r}: no such file") from None
    except OSError as error:
        raise UsageError(f"roster file {path} cannot be read: {error.strerror or error}") from error
    except msgspec.ValidationError as error:
        raise UsageError(
            f"roster file {path}: {one_line(str(error))}: write [[model]] entries and nothing else"
        ) from error
    except (TOMLKitError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"roster file {path} is not TOML: {one_line(str(error))[:150]}") from error


def _faults(entry: Mapping[str, Any], folders: tuple[str, ...], known: Sequence[str]) -> Iterator[str]:
    """Yield a phrase for each fault of an entry; its kind and its files are checked only if its keys are right."""
    unknown = [key for key in entry if key not in _KEYS]
    for key in unknown:
        close = difflib.get_close_matches(key, _KEYS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the keys are {', '.join(_KEYS)}"
        yield f"unknown key {one_line(key)!r}: {hint}"
    if "name" not in entry:
        yield "it has no name"
    if unknown or "name" not in entry:
        return
    if len(entry) == 1 and isinstance(entry["name"], str):  # a tag or a glob of timm, which is looked up later
        return
    try:
        own_model = _model(entry, folders)
    except msgspec.ValidationError as error:
        problem, _, key = str(error).replace(" | null", "").partition(" - at `$.")
        key = key.strip("`").partition("[")[0]
        yield f"{key} = {json.dumps(entry.get(key), default=str)[:60]}: {problem}"
        return
    yield from _faults_of_kind(own_model, entry)
    if own_model.name in KEYWORDS or matching(own_model.name, known) or registry.module_of(own_model.name):
        yield "name: reserved by a model of timm or a keyword of a roster: choose another one"


def _faults_of_kind(own_model: OwnModel, entry: Mapping[str, Any]) -> Iterator[str]:
    kinds = [kind for kind in _KINDS if kind in entry or (kind == "weights" and "arch" in entry)]
    if len(kinds) != 1:
        has = f"it has {' and '.join(kinds)}: " if kinds else ""
        yield f"{has}an own model has arch and weights, or factory, or embeddings"
        return
    for key in entry:
        if key not in _KINDS[kinds[0]]:
            yield f"{key}: cannot be combined with {kinds[0]}: remove it"
    for key, other in (("arch", "weights"), ("weights", "arch")):
        if kinds == ["weights"] and key not in entry:
            yield f"{key} is missing: {other} needs it"
    size = own_model.input_size
    if isinstance(size, tuple) and (len(size) not in (2, 3) or size[:-2] not in ((), (3,))):
        yield f"input_size = {list(size)}: expected a number of pixels, or [height, width]"
    if own_model.arch is not None:
        try:
            registry.pretrained_cfg(own_model.arch)
        except UsageError as error:
            yield f"arch: {error}"
    for key in ("weights", "embeddings"):
        path = own_model.file if key in entry else None
        if path is not None and not path.is_file():
            yield f"{key}: {path} {'is not a file' if path.exists() else 'does not exist'}"
        elif path is not None and key == "weights" and not suffix_of(path.name):
            yield f"{key}: {path}: must end with {', '.join(SUFFIXES)}"


def _model(entry: Mapping[str, Any], folders: tuple[str, ...]) -> OwnModel:
    return msgspec.convert({**entry, "folders": folders}, OwnModel)


def _source_of(module: str, folders: list[str]) -> Path | None:
    """Return the file of a module, found without running it or the packages that contain it."""
    search: Any = folders
    spec = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        spec = PathFinder.find_spec(name, search) if search is not None else None
        search = spec and spec.submodule_search_locations
    return Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None
