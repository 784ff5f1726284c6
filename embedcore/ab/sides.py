"""The process of a side: start it, send it requests, end it. `embedcore.plugin.side` is its other end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from embedcore.ab.environments import Environment, check_code
from embedcore.embed import interleaving
from embedcore.embed.trace import Trace
from embedcore.errors import EmbedcoreError, UsageError
from embedcore.plain import one_line
from embedcore.results.result import Result

# Not `-m`: a child process must be able to import the module by its name. Before Python 3.11, which knows
# PYTHONSAFEPATH, the working directory is on the path as "".
_PROGRAM = "import sys; sys.path[:] = filter(None, sys.path); from embedcore.plugin.side import main; main()"


class SideLost(EmbedcoreError):
    """The process of a side has ended."""


class Side:
    """A side with its running process; as a context manager it ends the process."""

    def __init__(self, environment: Environment, arguments: Sequence[str]) -> None:
        """Start the side with pytest's `arguments`, without waiting for it."""
        self.environment = environment
        self._facts: Mapping[str, Any] = {}
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(environment.python), "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=environment.variables(),
            start_new_session=True,  # Ctrl-C must reach this process only, which then ends the side
        )
        self._send({"open": list(arguments)})

    def opened(self) -> Mapping[str, Any]:
        """Wait until it is ready; return its versions, machine, settings, dataset and models. Raises UsageError."""
        if not self._facts:
            facts = self._answer()
            check_code(self.environment, facts["code"])
            self._facts = facts
        return self._facts

    def measure(self, model: str, **changes: Any) -> Result:
        """Measure a model in a fresh process, with `changes` to its settings. Raises SideLost."""
        self.request(model, **changes)
        return self.result()

    def renew(self) -> None:
        """Have the next processes come from a new forkserver. Raises SideLost."""
        self._call("renew")

    def request(self, model: str, **changes: Any) -> None:
        """Start the measurement of a model. Raises SideLost."""
        self._send({"call": "measure", "arguments": {"model": model, **changes}})

    def result(self) -> Result:
        """Wait for the result of the last request. Raises SideLost."""
        return Result.from_json(self._answer())

    def images(self) -> Mapping[str, Any]:
        """Return the saved JSON's block on all images of the dataset. Raises UsageError, SideLost."""
        block: Mapping[str, Any] = self._call("images")
        return block

    def embed(self, model: str, **changes: Any) -> Result:
        """Embed all images of the dataset, which `measure` does not, and keep the embeddings. Raises SideLost."""
        return Result.from_json(self._call("embed", model=model, **changes))

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when an answer has come."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def save_weights(self, model: str, folder: Path) -> None:
        """Have the side write random weights of a model. Raises UsageError, SideLost."""
        self._call("save_weights", model=model, folder=str(folder))

    def trace(self, model: str, **changes: Any) -> Trace:
        """Return the trace of a model's forward pass. Raises UsageError, SideLost."""
        return msgspec.convert(self._call("trace", model=model, **changes), Trace)

    def close(self) -> None:
        """End the process and any measurement in progress."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._lost() from error

    def _call(self, name: str, /, **arguments: Any) -> Any:
        """Return what a method of the other end returns. Raises UsageError, SideLost."""
        self._send({"call": name, "arguments": arguments})
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        try:
            answer = json.loads(self._process.stdout.readline())
        except ValueError as error:
            raise self._lost() from error
        if "error" in answer:
            raise UsageError(f"{self.environment.name}: {answer['error']}")
        return answer["answer"]

    def _lost(self) -> SideLost:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = [line for line in self._stderr.read().splitlines() if line.strip()]
        reason = one_line((lines or ["no output"])[-1])[:300]
        return SideLost(f"{self.environment.name}: its process ended with code {code}: {reason}")


def measure_interleaved(sides: Mapping[str, Side], model: str, changes: Mapping[str, Any]) -> dict[str, Result]:
    """Measure a model in a fresh process of each of two sides, which alternate their timing rounds.

    The first side of the mapping begins. Raises SideLost.
    """
    first, second = sides
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        fifos = {key: Path(folder) / key for key in sides}
        for fifo in fifos.values():
            os.mkfifo(fifo)
            stack.callback(os.close, os.open(fifo, os.O_RDWR))  # held open, so that a byte stays until it is read
        for key, other in ((first, second), (second, first)):
            sides[key].request(model, **changes, fifos=[str(fifos[key]), str(fifos[other])])
        interleaving.start(fifos[first])
        while waiting := {sides[key]: key for key in sides if key not in results}:
            for side in select.select([*waiting], [], [])[0]:
                key = waiting[side]
                results[key] = side.result()
                interleaving.release(fifos[second if key == first else first])
    return results
