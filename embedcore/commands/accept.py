"""``embedcore accept``: record known changes of models, or a run as the fixed baseline."""

from __future__ import annotations

import argparse
import fnmatch
from pathlib import Path

from embedcore.compare.limits import GATE_FILE, accept
from embedcore.errors import UsageError
from embedcore.results.merge import merge, write_run
from embedcore.results.reading import read_parts, read_run
from embedcore.results.result import Result
from embedcore.results.run import run_of

BASELINE = Path("embedcore-baseline.json")
"""The fixed baseline, unless ``--file`` names another file."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "accept",
        help="record known changes in the gate file, or a run as the fixed baseline",
        description="Record the state of models in RUN in the gate file; compare then accepts it. With --baseline, "
        "copy RUN to the fixed baseline: small changes, each of which passes, add up in a comparison with it.",
    )
    parser.add_argument("saved", metavar="RUN", help="saved run with the state to accept")
    parser.add_argument("models", metavar="MODEL", nargs="*", help="model tags or globs")
    parser.add_argument("--because", metavar="WHY", help="the reason, for later readers")
    parser.add_argument("--baseline", action="store_true", help="make RUN, with all its models, the fixed baseline")
    parser.add_argument(
        "--file", type=Path, metavar="FILE", help=f"gate file (default: embedcore-gate.toml), or baseline ({BASELINE})"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.baseline:
        if arguments.models or arguments.because is not None:
            raise UsageError("accept --baseline takes a run only: neither MODEL nor --because")
        return _fix_baseline(arguments.saved, arguments.file or BASELINE)
    if not arguments.models or arguments.because is None:
        raise UsageError("accept needs at least one MODEL, and --because WHY (or --baseline, for the whole run)")
    return _accept_models(arguments)


def _fix_baseline(saved: str, path: Path) -> int:
    """Copy a complete run, whose shards may be in a folder, to `path`. Raises UsageError."""
    parts = read_parts(saved)
    data = parts[0][1] if len(parts) == 1 else merge(parts).data
    found = run_of(data, parts[0][0])
    if not found.results:
        raise UsageError(f"{found.path}: no model was measured, so it cannot be a baseline")
    if shard := found.selection.get("shard"):
        raise UsageError(f"{found.path} is shard {shard}: join the shards with embedcore merge first")
    if found.unreached:
        raise UsageError(f"{found.path} was interrupted: {len(found.unreached)} of its models were not reached")
    write_run(data, path, "--file")
    print(f"{path}: {found.name} is the fixed baseline, with {len(found.results)} models")
    return 0


def _accept_models(arguments: argparse.Namespace) -> int:
    saved = read_run(arguments.saved)
    known = {saved.case_name(result): result for result in (*saved.results, *saved.excluded)}
    states: dict[str, Result | None] = {}
    for name in arguments.models:
        found = fnmatch.filter(known, name)
        if not found and any(sign in name for sign in "*?["):
            raise UsageError(f"{name} matches no model of {saved.path}")
        for model in found or [name]:
            states[model] = known.get(model)
    path = arguments.file or Path(GATE_FILE)
    accept(path, states, arguments.because, saved.name)
    for model, state in states.items():
        print(f"{path}: {model} accepted as {'missing' if state is None else state.status} in {saved.name}")
    return 0
