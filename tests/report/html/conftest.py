"""The page of a made-up run, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsing
import pytest
from browsing import Visit


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return browsing.written(browsing.a_run(), tmp_path_factory.mktemp("report"))


@pytest.fixture
def visit(browser: Any, file: Path) -> Iterator[Visit]:
    """The page, newly opened; fails if anything was logged to the console or requested."""
    with browsing.visiting(browser, file, accept_downloads=True) as visit:
        yield visit.go()
        assert visit.errors == []
        assert {url.partition("#")[0] for url in visit.requests} <= {"about:blank", visit.address, "data:,"}
