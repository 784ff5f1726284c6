from __future__ import annotations

import subprocess
import sys

import pytest

from embedcore.cli import COMMANDS, main


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["check"], ["cache", "list", "--nonsense"]])
def test_a_call_that_makes_no_sense_has_exit_code_4(arguments, capsys):
    assert main(arguments) == 4
    assert capsys.readouterr().err


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


def test_what_is_not_there_is_one_line(capsys):
    assert main(["check", "/nowhere/at/all"]) == 4
    error = capsys.readouterr().err
    assert error.startswith("embedcore: ")
    assert "/nowhere/at/all" in error
    assert error.count("\n") == 1


def test_the_console_script_is_installed():
    done = subprocess.run([sys.executable, "-m", "embedcore.cli", "--help"], capture_output=True, text=True, check=True)
    assert "weights" in done.stdout
