"""Our end of a side: starting its process, asking it, ending it."""

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

from embedcore.ab.environments import side_environment
from embedcore.embed import turns
from embedcore.errors import EmbedcoreError, UsageError
from embedcore.plain import one_line
from embedcore.results.result import Result

# Not `-m`: what a process of its own is to run must be importable by its name.
_PROGRAM = "from embedcore.plugin.side import main; main()"


def measured_in_turn(sides: Mapping[str, Side], model: str, changes: Mapping[str, Any]) -> dict[str, Result]:
    """The results of a model in a fresh process of each of two sides, which time their rounds in turn.

    The first side of the mapping begins. Raises SideLost.
    """
    first, second = sides
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as folder:
        fifos = {key: Path(folder) / key for key in sides}
        for fifo in fifos.values():
            os.mkfifo(fifo)
        # Held open, so that what is put in stays there until it is taken out.
        with contextlib.ExitStack() as stack:
            for fifo in fifos.values():
                stack.callback(os.close, os.open(fifo, os.O_RDWR))
            for key, other in ((first, second), (second, first)):
                sides[key].ask(model, **changes, turns=[str(fifos[key]), str(fifos[other])])
            turns.start(fifos[first])
            while waiting := [key for key in sides if key not in results]:
                ready, _, _ = select.select([sides[key] for key in waiting], [], [])
                for key in waiting:
                    if sides[key] in ready:
                        results[key] = sides[key].result()
                        turns.release(fifos[second if key == first else first])
    return results


class SideLost(EmbedcoreError):
    """The process of a side has ended."""


class Side:
    """One side, with its process running. A context manager: when it ends, the process is gone."""

    def __init__(self, name: str, interpreter: Path, arguments: Sequence[str]) -> None:
        """Start the side `name` (what messages call it) with `arguments` of pytest; does not wait for it."""
        self.name = name
        self.interpreter = interpreter
        self.facts: Mapping[str, Any] = {}
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(interpreter), "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=side_environment(),
            start_new_session=True,  # Ctrl-C is for us, who then end it
        )
        self._send({"open": list(arguments)})

    def opened(self) -> Mapping[str, Any]:
        """Its versions, machine, settings, dataset and models, when it is ready. Raises UsageError."""
        if not self.facts:
            self.facts = self._answer()
        return self.facts

    def measure(self, model: str, **changes: Any) -> Result:
        """The result of a model in a fresh process of this side. Raises SideLost."""
        self.ask(model, **changes)
        return self.result()

    def ask(self, model: str, **changes: Any) -> None:
        """Have it measure a model, and do not wait. Raises SideLost."""
        self._send({"measure": model, "changes": changes})

    def result(self) -> Result:
        """What has been asked for last. Raises SideLost."""
        return Result.from_json(self._answer())

    def fileno(self) -> int:
        """Can be read when there is an answer."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def save_weights(self, model: str, folder: Path) -> None:
        """Have it write random weights of a model. Raises UsageError, SideLost."""
        self._send({"save_weights": model, "folder": str(folder)})
        self._answer()

    def close(self) -> None:
        """End it, and whatever it measures."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()

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
            raise SideLost(self._last_words()) from error

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        try:
            said = json.loads(self._process.stdout.readline())
        except ValueError as error:
            raise SideLost(self._last_words()) from error
        if "error" in said:
            raise UsageError(f"{self.name}: {said['error']}")
        return said["answer"]

    def _last_words(self) -> str:
        code = self._process.wait()
        self._said.seek(0)
        lines = [line for line in self._said.read().splitlines() if line.strip()]
        return f"{self.name}: its process ended with code {code}: {one_line((lines or ['it said nothing'])[-1])[:300]}"
