"""Writing to the terminal between pytest's own lines, and a status line below them."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import pytest

from embedcore.plain import encodable, printable_lines, wrapped


class Terminal:
    """The terminal of one session; writes nothing in a pytest-xdist worker, which has none."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        capture = config.pluginmanager.getplugin("capturemanager")
        self.uncaptured: Any = capture.global_and_fixture_disabled if capture else contextlib.nullcontext
        """A context manager that suspends capture, so that writing reaches the terminal during a test."""

    @property
    def _reporter(self) -> Any:
        return self._config.pluginmanager.get_plugin("terminalreporter")

    @property
    def exists(self) -> bool:
        return self._reporter is not None

    @property
    def verbosity(self) -> int:
        return self._config.get_verbosity()

    @property
    def width(self) -> int:
        return self._config.get_terminal_writer().fullwidth

    @property
    def column(self) -> int:
        """Characters that pytest has written to its current line."""
        return self._config.get_terminal_writer().width_of_current_line

    def write_line(self, line: str) -> None:
        """Write a line between those of pytest."""
        with self.uncaptured():
            if self.exists:
                self._reporter.ensure_newline()
                if self.column:  # after a dot that pytest no longer counts
                    self._reporter.write_line("")
                self._reporter.write_line(line)

    def notes(self, notes: list[str]) -> None:
        """Write notes of embedcore, wrapped to the terminal's width."""
        for note in notes if self.exists else ():
            self.write_line(self.wrapped(f"embedcore: {printable_lines(note)}"))

    def wrapped(self, line: str) -> str:
        """Return a line that the terminal can show, wrapped to its width."""
        return wrapped(showable(line), self.width)


def showable(text: str) -> str:
    """Return text that the terminal can encode; otherwise pytest would escape the whole text onto one line."""
    return encodable(text, getattr(sys.__stdout__, "encoding", None))


class StatusLine:
    """A line below the one that pytest is writing, which keeps its content and the cursor position."""

    # Index moves down and scrolls at the last line, and unlike a line feed keeps the column; then up again, save the
    # cursor, down. Lines are not wrapped meanwhile, in case the terminal has become narrower.
    _BELOW = "\x1bD\x1b[A\x1b7\x1b[B\r\x1b[?7l"
    _BACK = "\x1b[K\x1b[?7h\x1b8"

    def __init__(self, config: pytest.Config, terminal: Terminal) -> None:
        self._terminal = terminal
        self._visible = False
        with terminal.uncaptured():
            quiet = terminal.verbosity < 0 or not terminal.exists
            # Live logs of pytest would be written over the line.
            logs = config.pluginmanager.has_plugin("logging-plugin") and (
                config.getini("log_cli") or config.getoption("log_cli_level") is not None
            )
            self.possible = not (quiet or logs) and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    def width(self) -> int:
        with self._terminal.uncaptured():
            return os.get_terminal_size(sys.stdout.fileno()).columns - 1

    def show(self, text: str) -> None:
        column = self._terminal.column
        if column and column % (self.width() + 1) == 0:
            return  # the cursor is beyond the last column, where no terminal can restore it
        self._write(text)
        self._visible = True

    def clear(self) -> None:
        if self._visible:
            self._write("")
            self._visible = False

    def _write(self, text: str) -> None:
        with self._terminal.uncaptured():
            encoding = sys.stdout.encoding or "ascii"
            plain = printable_lines(text).encode(encoding, "replace").decode(encoding)
            sys.stdout.write(f"{self._BELOW}{plain}{self._BACK}")
            sys.stdout.flush()
