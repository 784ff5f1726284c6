"""The examples in docstrings give the results shown."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import embedcore

PACKAGE = Path(str(embedcore.__file__)).parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings(name: str) -> None:
    done = doctest.testmod(importlib.import_module(name))
    assert done.attempted and not done.failed
