from __future__ import annotations

import os
import subprocess
import sys

import pytest

import embedcore
from embedcore.cli import COMMANDS, main
from embedcore.version import VERSION


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["check"], ["cache", "list", "--nonsense"]])
def test_wrong_usage_has_exit_code_4(arguments, capsys):
    assert main(arguments) == 4
    assert capsys.readouterr().err


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize(
    "command", [*COMMANDS, "cache list", "cache prune", "weights list", "weights fetch"], ids=lambda name: name
)
def test_every_command_has_help(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: embedcore {command} ")


def test_missing_input_is_one_line(capsys):
    assert main(["check", "/nowhere/at/all"]) == 4
    error = capsys.readouterr().err
    assert error.startswith("embedcore: ")
    assert "/nowhere/at/all" in error
    assert error.count("\n") == 1


def test_the_console_script_is_installed():
    done = subprocess.run([sys.executable, "-m", "embedcore.cli", "--help"], capture_output=True, text=True, check=True)
    assert "weights" in done.stdout


def test_arguments_before_and_after_two_hyphens_reach_pytest(monkeypatch):
    passed = []
    monkeypatch.setattr("embedcore.commands.ab._run", lambda parsed: passed.extend(parsed.arguments) or 0)
    assert main(["ab", "folder", "--", "-k", "vit"]) == 0
    assert passed == ["folder", "-k", "vit"]


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"embedcore {embedcore.__version__}\n"
    assert embedcore.__version__ == VERSION
    assert {"__version__", "load_dataset", "read_run"} <= set(dir(embedcore))


def test_a_tilde_after_an_equals_sign_is_the_home_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c").mkdir()
    assert main(["cache", "list", "--cache=~/c"]) == 0
    assert str(tmp_path / "c") in capsys.readouterr().out
    assert main(["cache", "list", "--cache=~nobody-is-called-so/c"]) == 4
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_our_characters_shows_substitutes(encoding):
    code = "from embedcore import cli; cli.main(['--version']); print('.5 ±.1 … 2× ☃')"
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    shown = {"ascii": ".5 +-.1 ... 2x ?", "latin-1": ".5 ±.1 ... 2× ?", "utf-8": ".5 ±.1 … 2× ☃"}[encoding]
    assert done.stdout.decode(encoding).splitlines()[-1] == shown
