"""Shared by benchmarks/ and tests/: which benchmarks run by default."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

HARNESS = Path(__file__).parent / "benchmarks" / "harness"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the harness's own speed out of ``pytest benchmarks``: it runs when its path or its marker is named."""
    if collection_path != HARNESS or "embed_harness" in config.option.markexpr:
        return None
    named = (Path(argument.split("::")[0]).resolve() for argument in config.args)
    return None if any(path == HARNESS or HARNESS in path.parents for path in named) else True
