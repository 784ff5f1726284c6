"""A side of ``embedcore ab``: a process of the side's interpreter that answers requests until its input ends.

Requests and answers are JSON lines on standard input and output; output of libraries goes to standard error. It is in
this package because pytest turns the command line into cases and settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import queue
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch

from embedcore.embed.trace import Trace
from embedcore.errors import EmbedcoreError, UsageError
from embedcore.files import written_whole
from embedcore.forkserver import forkserver_context, renew_forkserver, start_surely
from embedcore.images.dataset import Dataset
from embedcore.images.workers import hidden_main
from embedcore.measure.bench import Bench
from embedcore.plain import json_safe, one_line
from embedcore.plugin.cases import is_case, model_of
from embedcore.plugin.hooks import options_of
from embedcore.plugin.machine import code_of_children, machine, machine_in_use
from embedcore.plugin.options import Options
from embedcore.plugin.start import bench_of, dataset_of
from embedcore.requirements import distributions
from embedcore.results.result import Result
from embedcore.results.saved import dataset_block
from embedcore.version import VERSION
from embedcore.zoo.loading import build_model
from embedcore.zoo.roster import own_models
from embedcore.zoo.weights import Weights

CASE = "def test_model(embed_model, embed_images, embed_measure, embed_replay): ...\n"

CALLS = ("measure", "renew", "images", "embed", "trace", "save_weights")
"""Methods of `Side` that a request may call."""

# Few images: a side is asked for speed and drift, not for scores, and must be quick.
MAX_CLASSES, MAX_PER_CLASS = 8, 4


class _Grabber:
    """Keeps the result of a collection."""

    def __init__(self) -> None:
        self.models: list[str] = []
        self.options: Options | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.models = [model_of(item) for item in session.items if is_case(item)]
        self.options = options_of(session.config)


def collect(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """Return pytest's settings and models for ``arguments``, in the order of the cases. Raises UsageError."""
    grabber, output = _Grabber(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test_models.py"
        path.write_text(CASE)
        flags = ["--collect-only", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
        flags += [f"--rootdir={Path.cwd()}", *_ini_file(Path.cwd())]
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = pytest.main([*flags, str(path), *arguments], plugins=[grabber])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) or grabber.options is None:
        lines = [line for line in output.getvalue().splitlines() if line.strip()]
        errors = [line for word in (" error: ", "ERROR", "rror: ") for line in lines if word in line]
        why = (errors or lines or ["no reason given"])[0].rpartition(" error: ")[2]
        raise UsageError(one_line(why.strip().removeprefix("ERROR:")))
    return grabber.options, grabber.models


def _ini_file(folder: Path) -> list[str]:
    """Return arguments for the ini file that pytest would use in ``folder``."""
    sections = {"pytest.ini": "", "pyproject.toml": "[tool.pytest", "tox.ini": "[pytest]", "setup.cfg": "[tool:pytest]"}
    for name, section in sections.items():
        path = folder / name
        if path.is_file() and section in path.read_text(errors="replace"):
            return ["-c", str(path)]
    return []


class Side:
    """Settings, images and a bench, for requests to measure."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.options, self.models = collect(arguments)
        self.own_models = own_models(self.options.roster)
        precomputed = [model for model in self.models if model in self.own_models and self.own_models[model].embeddings]
        if precomputed:
            raise UsageError(f"{precomputed[0]} has embeddings only: there is no model to time")
        self.bench = bench_of(dataclasses.replace(self.options, processes=1), self.own_models)
        self.dataset = dataset_of(self.options, max_classes=MAX_CLASSES, max_per_class=MAX_PER_CLASS)
        self.dataset.expect_classes()
        self._keeping: tuple[Bench, Dataset] | None = None

    def facts(self) -> Mapping[str, Any]:
        """Return the versions, machine, settings, dataset and models of the side."""
        facts = machine(self.options.where)
        return {
            "versions": {"embedcore": VERSION, "timm": facts["timm"], "torch": facts["torch"], "commit": _commit()},
            "code": code_of_children(),
            "machine": facts,
            "machine_in_use": machine_in_use(facts),
            "settings": self.options.recorded("number"),
            "dataset": dataset_block(self.dataset),
            "models": self.models,
            "weights": self.options.weights,
            "seed": self.options.seed,
            "cache": str(self.options.cache_folder),
        }

    def measure(self, model: str, **changes: Any) -> Result:
        """Return the result of a model in a fresh process, with ``changes`` to its case, such as ``batch_size``."""
        return self.bench.measure(model, self.dataset, **changes)

    def renew(self) -> None:
        """Start a new forkserver for the next processes; both sides' import at the same time."""
        renew_forkserver()
        start_surely(forkserver_context)

    def images(self) -> Mapping[str, Any]:
        """Return the saved JSON's block on all images of the dataset, not only on the few of `measure`."""
        return dataset_block(self._all_images()[1])

    def embed(self, model: str, **changes: Any) -> Result:
        """Return the result of a model on all images, and keep its embeddings in the cache folder."""
        bench, dataset = self._all_images()
        return bench.measure(model, dataset, **changes)

    def _all_images(self) -> tuple[Bench, Dataset]:
        if self.options.unlabelled:
            raise UsageError("--embed-unlabelled: stored embeddings are compared by labels; leave out --index")
        if self._keeping is None:
            options = dataclasses.replace(self.options, processes=1, keep_embeddings=True)
            self._keeping = bench_of(options, self.own_models), dataset_of(options)
        return self._keeping

    def trace(self, model: str, **changes: Any) -> Trace:
        """Return the trace of a model's forward pass. Raises EmbedcoreError."""
        return self.bench.trace(model, self.dataset, **changes)

    def save_weights(self, model: str, folder: str) -> None:
        """Write seeded random weights of a model into a folder, from which both sides load. Raises UsageError."""
        path = Path(folder) / f"{model}.safetensors"
        if path.is_file() or model in self.own_models:  # own models have weights
            return
        with hidden_main():
            process = forkserver_context().Process(target=_save_weights, args=(model, self.options.seed, str(path)))
            process.start()
            process.join()
        if not path.is_file():
            raise UsageError(f"random weights of {model} cannot be written to {path}")


def _save_weights(model: str, seed: int, path: str) -> None:
    """Run in a process of its own."""
    state = build_model(model, Weights("random", f"seed:{seed}")).state_dict()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # Copies, since safetensors refuses tensors that share memory.
    content = safetensors.torch.save({name: value.contiguous().clone() for name, value in state.items()})
    with written_whole(Path(path)) as file:
        file.write(content)


def _commit() -> str | None:
    """Return the commit of a timm that was installed from git; None otherwise."""
    timm = distributions().get("timm")
    commit = timm.direct_url().get("vcs_info", {}).get("commit_id") if timm else None
    return commit if isinstance(commit, str) else None


def main() -> None:
    """Answer the requests on standard input, in order."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    side: Side | None = None
    for request in iter(_requests().get, None):
        answer: Any = None
        try:
            match request:
                case {"open": list(arguments)}:
                    side = Side(arguments)
                    answer = side.facts()
                case {"call": str(name), "arguments": dict(arguments)} if side is not None and name in CALLS:
                    answer = getattr(side, name)(**arguments)
                case _:
                    raise UsageError(f"unknown request {str(request)[:80]}")
            reply = {"answer": msgspec.to_builtins(answer) if isinstance(answer, msgspec.Struct) else answer}
        except EmbedcoreError as error:
            reply = {"error": one_line(str(error))}
        print(json.dumps(json_safe(reply), allow_nan=False), file=answers, flush=True)


def _requests() -> queue.Queue[Any]:
    """Return a queue of requests; at the end of the input this process exits, with any measurement in progress."""
    requests: queue.Queue[Any] = queue.Queue()
    lines = os.fdopen(os.dup(0), encoding="utf-8")  # a copy, since pytest replaces the original for a while

    def read() -> None:
        for line in lines:
            requests.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return requests
