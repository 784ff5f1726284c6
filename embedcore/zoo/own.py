"""The user's own models, as a roster file in TOML has them: weights for an architecture, a factory, or embeddings."""

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
from typing import Annotated, Any, Literal

import msgspec
import tomlkit
from tomlkit.exceptions import TOMLKitError

from embedcore.errors import UsageError
from embedcore.files import sha256_of
from embedcore.plain import one_line

FAMILY = "own"
"""Slug of the family of own models that name no other."""

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", max_length=100)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
_Pixels = Annotated[int, msgspec.Meta(gt=0, le=10_000)]
_Level = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Spread = Annotated[float, msgspec.Meta(gt=0)]


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """One ``[[model]]`` of a roster file: its fields are the keys. Relative paths mean the file's folder; picklable.

    It has ``arch`` and ``weights``, or ``factory``, or ``embeddings``.
    """

    name: _Name
    arch: _Text | None = None
    """Architecture or tag of timm, which gives the input too, where nothing else is said."""
    weights: _Text | None = None
    """File of its weights or of a training checkpoint: safetensors, pth, pt or bin."""
    factory: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")] | None = None
    """``package.module:function``, which gives a torch module: see `embedcore.zoo.factory`."""
    embeddings: _Text | None = None
    """File of float [n, d] as ``numpy.save`` writes it, in the order of ``embedcore check DATASET --list``."""
    input_size: _Pixels | tuple[_Pixels, ...] | None = None
    """The side of a square, or height and width, perhaps with 3 before them."""
    mean: tuple[_Level, _Level, _Level] | None = None
    std: tuple[_Spread, _Spread, _Spread] | None = None
    crop_pct: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    crop_mode: Literal["center", "squash", "border"] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"] | None = None
    family: _Name | None = None
    """Slug of the leaderboard that it belongs to, one that is there or a new one; `FAMILY` if None."""
    licence: _Text | None = None
    pretraining: _Text | None = None
    checkpoint_key: _Text | None = None
    """Which part of ``weights`` is taken, such as ``model_ema`` or ``state_dict.encoder_q``; see `zoo.checkpoint`."""
    resample: bool = False
    """Whether timm may resize position embeddings, patch kernels and window tables that do not fit."""
    trust: bool = False
    """Whether ``weights`` may be a pickle with code, which is then run."""
    folders: tuple[str, ...] = ()
    """Not a key: the roster file's folder, then the one in which it was read; none: the current folder."""

    @property
    def source(self) -> str:
        """What results say of where the weights are from."""
        return f"factory:{self.factory}" if self.factory else f"own:{self.weights or self.embeddings}"

    @property
    def file(self) -> Path | None:
        """Its weights, its embeddings or the source of its factory; None where that is not known without running it."""
        if self.factory:
            return _source_of(self.factory.partition(":")[0], [*self.import_folders, *sys.path])
        return Path(self.import_folders[0]) / Path(self.weights or self.embeddings or "").expanduser()

    @property
    def import_folders(self) -> tuple[str, ...]:
        """Where its factory is looked for before all else."""
        return self.folders or (str(Path.cwd()),)

    def make_importable(self) -> None:
        """Let this process import from `import_folders`."""
        sys.path[:0] = [folder for folder in self.import_folders if folder not in sys.path]

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of its input, where the file says them."""
        given = (self.input_size,) * 2 if isinstance(self.input_size, int) else self.input_size
        return None if given is None else (given[-2], given[-1])

    @property
    def overlay(self) -> dict[str, Any]:
        """What differs from timm's configuration of its architecture."""
        names = ("mean", "std", "crop_pct", "crop_mode", "interpolation")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return given if self.size is None else given | {"input_size": (3, *self.size)}

    def content(self, sha256_of: Callable[[Path], str] = sha256_of) -> str:
        """SHA-256 (hex) of `file`; "" where it cannot be read."""
        try:
            return sha256_of(self.file) if self.file is not None else ""
        except OSError:
            return ""

    def state(self, content: str) -> str:
        """What changes when the entry or the ``content`` of its file does: ``sha256:`` and 16 hex digits."""
        settings = {name: value for name, value in asdict(self).items() if name != "folders"}
        text = json.dumps([settings, content], sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


_KEYS = [field.name for field in fields(OwnModel) if field.name != "folders"]
_OF_INPUT = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation")
_SHARED = ("name", "family", "licence", "pretraining")
_KINDS: Mapping[str, tuple[str, ...]] = {
    "weights": (*_SHARED, "arch", "weights", "checkpoint_key", "resample", "trust", *_OF_INPUT),
    "factory": (*_SHARED, "factory", *_OF_INPUT),
    "embeddings": (*_SHARED, "embeddings"),
}
"""The keys that an entry of each kind may have."""
_WORDS = {
    **dict.fromkeys(
        ("arch", "weights", "checkpoint_key", "embeddings", "licence", "pretraining"), "text of 1 to 400 characters"
    ),
    **dict.fromkeys(("name", "family"), "letters, digits and _ . - + only, the first none of . - +"),
    "factory": "package.module:function",
    "mean": "three numbers from 0 to 1",
    "std": "three numbers above 0",
    "input_size": "a number of pixels, or [height, width]",
    "crop_pct": "a number above 0, at most 1",
    "crop_mode": "center, squash or border",
    "interpolation": "nearest, bilinear, bicubic, box, hamming or lanczos",
    **dict.fromkeys(("resample", "trust"), "true or false"),
}


def read_own(path: Path) -> list[tuple[str, OwnModel | None]]:
    """The entries of a roster file in TOML, in order; with None those that name models of timm, by tag or glob.

    Raises UsageError where the file cannot be read, and for all bad entries at once, a line each.
    """
    from embedcore.zoo.roster import all_tags

    entries, known = _entries(path), all_tags()
    folders = tuple(dict.fromkeys([str(path.absolute().parent), str(Path.cwd())]))
    found: list[tuple[str, OwnModel | None]] = []
    wrong: list[str] = []
    names: dict[str, int] = {}
    for number, entry in enumerate(entries, start=1):
        name = entry.get("name")
        where = f"{path}, model {number}" + (f" ({one_line(name)[:60]!r})" if isinstance(name, str) else "")
        faults = [f"{where}: {fault}" for fault in _faults(entry, folders, known)]
        if not faults and len(entry) > 1 and names.setdefault(str(name), number) != number:
            faults = [f"{where}: name: model {names[str(name)]} has it already"]
        wrong += faults
        if not faults:
            found.append((str(name), _model(entry, folders) if len(entry) > 1 else None))
    if wrong:
        raise UsageError("\n".join(wrong))
    return found


def _entries(path: Path) -> list[Mapping[str, Any]]:
    try:
        data = tomlkit.parse(path.read_bytes().removeprefix(codecs.BOM_UTF8)).unwrap()
    except FileNotFoundError:
        raise UsageError(f"roster {str(path)!r}: no such file") from None
    except OSError as error:
        raise UsageError(f"roster file {path} cannot be read: {error.strerror or error}") from error
    except (TOMLKitError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"roster file {path} is not TOML: {one_line(str(error))[:150]}") from error
    unknown = [key for key in data if key != "model"]
    if unknown:
        raise UsageError(f"roster file {path}: unknown key {one_line(unknown[0])!r}: it holds [[model]] entries only")
    entries = data.get("model", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"roster file {path}: 'model' is no list of tables: each begins with a line [[model]]")
    if not entries:
        raise UsageError(f"roster file {path} names no model: each begins with a line [[model]]")
    return entries


def _faults(entry: Mapping[str, Any], folders: tuple[str, ...], known: Sequence[str]) -> Iterator[str]:
    """What is wrong with an entry, a phrase each; of its kind and its files only where its keys are right."""
    from embedcore.zoo import registry, roster

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
        own = _model(entry, folders)
    except msgspec.ValidationError as error:
        key = str(error).partition(" - at `$.")[2].strip("`").partition("[")[0]
        yield f"{key} = {json.dumps(entry.get(key), default=str)[:60]}: must be {_WORDS[key]}"
        return
    yield from _faults_of_kind(own, entry)
    if own.name in roster.KEYWORDS or roster.matching(own.name, known) or registry.module_of(own.name):
        yield "name: is one of timm's or of --embed-roster's: give it another one"


def _faults_of_kind(own: OwnModel, entry: Mapping[str, Any]) -> Iterator[str]:
    from embedcore.zoo import registry

    kinds = [kind for kind in _KINDS if kind in entry or (kind == "weights" and "arch" in entry)]
    if len(kinds) != 1:
        has = f"it has {' and '.join(kinds)}: " if kinds else ""
        yield f"{has}an own model has arch and weights, or factory, or embeddings"
        return
    for key in entry:
        if key not in _KINDS[kinds[0]]:
            yield f"{key}: means nothing beside {kinds[0]}"
    for key, other in (("arch", "weights"), ("weights", "arch")):
        if kinds == ["weights"] and key not in entry:
            yield f"{key} is missing: {other} needs it"
    if not isinstance(own.input_size, int | None) and (
        len(own.input_size) not in (2, 3) or own.input_size[:-2] not in ((), (3,))
    ):
        yield f"input_size = {list(own.input_size)}: must be {_WORDS['input_size']}"
    if own.arch is not None:
        try:
            registry.pretrained_cfg(own.arch)
        except UsageError as error:
            yield f"arch: {error}"
    for key in ("weights", "embeddings"):
        if key in entry:
            yield from (f"{key}: {fault}" for fault in _faults_of_file(own, key))


def _faults_of_file(own: OwnModel, key: str) -> Iterator[str]:
    from embedcore.zoo.folder import SUFFIXES, suffix_of

    path = own.file
    assert path is not None
    if not path.is_file():
        yield f"{path} is {'not a file' if path.exists() else 'not there'}"
    elif key == "weights" and not suffix_of(path.name):
        yield f"{path}: must end with {', '.join(SUFFIXES)}"


def _model(entry: Mapping[str, Any], folders: tuple[str, ...]) -> OwnModel:
    return msgspec.convert({**entry, "folders": folders}, OwnModel)


def _source_of(module: str, folders: list[str]) -> Path | None:
    """The file of a module, found without running it or the packages that it is in."""
    places: Any = folders
    spec = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        spec = PathFinder.find_spec(name, places) if places is not None else None
        places = spec and spec.submodule_search_locations
    return Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None
