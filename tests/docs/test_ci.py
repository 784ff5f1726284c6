"""The upgrade guide is correct: its commands run in order, with the exit codes and findings that it shows."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import forked
from documents import page

PAGE = page("ci.md")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
SHOWN, *_ = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
UPGRADE = "python -m pip install --upgrade timm"
MODEL = "tf_efficientnet_lite0.in1k"


def upgrade_timm(folder):
    """Copy timm into `folder`, with another crop."""
    shutil.copytree(Path(importlib.util.find_spec("timm").origin).parent, folder / "timm", symlinks=True)
    path = folder / "timm" / "models" / "efficientnet.py"
    source = path.read_text()
    assert source.count(f"'{MODEL}': _cfg(") == 1
    path.write_text(source.replace(f"'{MODEL}': _cfg(", f"'{MODEL}': _cfg(crop_pct=1.0,"))


def pattern_of(line):
    """A pattern of the line with any column widths and decimals, since the emoji images may change."""
    return r"\s+".join(
        re.sub(r"\d+$", r"\\d+", re.escape(word)) if "." in word else re.escape(word) for word in line.split()
    )


def test_the_commands_run_in_order_with_the_output_shown(tmp_path):
    (tmp_path / "upgraded").mkdir()
    repository = tmp_path / "repository"
    repository.mkdir()
    # The benchmark does not use the project's pytest settings.
    (repository / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--nonsense"\n')
    # The outcome must not depend on the speed of this machine.
    (repository / "embedcore-gate.toml").write_text('fail_on = "acc:0.5pt,drift:1e-3,status"\n')
    few = f"--embed-roster={MODEL} --embed-max-classes=16 --embed-batch-size=2 --embed-rounds=2 --embed-isolation=none"
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "upgraded"), os.environ.get("PYTHONPATH", "")]),
        "PYTEST_ADDOPTS": f"{few} --embed-cache={tmp_path / 'cache'} -p no:cacheprovider",
        "HF_HUB_OFFLINE": "1",
    }
    environment.pop("GITHUB_ACTIONS", None)
    before, after = COMMANDS[: COMMANDS.index(UPGRADE)], COMMANDS[COMMANDS.index(UPGRADE) + 1 :]
    for command in before:
        code, shown = run(command, repository, environment)
        assert code == 0, f"{command}\n{shown}"
    upgrade_timm(tmp_path / "upgraded")
    for command in after:
        command, _, expected = command.partition("  # exit code ")
        code, shown = run(command, repository, environment, imports=True)
        assert code == int(expected or 0), f"{command}\n{shown}"
        if expected:
            for line in SHOWN.splitlines():
                assert re.search(pattern_of(line), shown), shown


def run(command, folder, environment, *, imports=False):
    """Run a command; return its exit code and output. `imports`: it must import timm anew."""
    program, *arguments = shlex.split(command)
    if program == "pytest" and not imports:
        output = folder.parent / "output"
        process = forked.start(forked.lean_session, *arguments, folder=folder, output=output, environment=environment)
        return forked.ended(process), output.read_text()
    done = subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout + done.stderr
