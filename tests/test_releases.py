"""The history of timm's releases: which releases are run, which code counts as equal, and the published page."""

from __future__ import annotations

import base64
import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import tomlkit
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

HARNESS = Path(__file__).parents[1] / "benchmarks" / "harness"
VERSIONS = [f"1.0.{number}" for number in range(20)]


@pytest.fixture(scope="module")
def harness():
    """The modules of the harness, which are scripts beside each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HARNESS))
        import release_side
        import releases

        yield releases, release_side
        for name in ("release_side", "releases"):
            del sys.modules[name]


@given(count=st.integers(1, 60))
def test_the_order_of_releases_covers_all_and_halves_the_gaps(harness, count):
    order = harness[0].spread(count)
    assert sorted(order) == list(range(count))
    for known in range(2, count):
        gaps = np.diff(sorted(order[:known]))
        assert gaps.max() <= 2 * max(1, gaps.min()) + 1


@given(changes=st.sets(st.integers(1, 19), max_size=4), known=st.sets(st.integers(1, 18), max_size=6))
def test_narrowing_finds_the_first_release_of_each_change(harness, changes, known):
    releases, _ = harness
    ran = []

    def line(place):
        level = sum(change <= place for change in changes)
        sketch = np.full((8, 64), 1.0 + level, dtype=np.float32)
        return {"sketch": base64.b64encode(sketch.tobytes()).decode(), "dim": 64, "size": 96, "keys": ""}

    class Journal:
        def __init__(self):
            self.lines = {(VERSIONS[place], "m"): line(place) for place in {0, 19, *known}}

        def measured(self, release, model):
            return self.lines.get((release, model), {})

    def embed_in(version, models, versions, folder, journal):
        ran.append(version)
        journal.lines[version, "m"] = line(VERSIONS.index(version))

    journal = Journal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(releases, "embed_in", embed_in)
        releases.narrow(["m"], VERSIONS, Path(), journal)
    assert {VERSIONS.index(move.new) for move in releases.moves(VERSIONS, journal)} == changes
    assert len(ran) == len(set(ran)) and len(ran) <= 5 * len(changes)


def test_weights_depend_on_names_and_shapes_or_on_shapes_alone(harness):
    _, side = harness
    first, second = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)) for _ in range(2))
    renamed = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.BatchNorm1d(4), "c": nn.Linear(4, 4)})
    assert side.fill(first) == side.fill(second) != side.fill(renamed)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same) and not torch.equal(first[0].weight, renamed["a"].weight)
    for module in (first, renamed):
        side.fill(module, by_name=False)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), renamed.parameters(), strict=True))
    assert (first[1].running_var >= 1).all()


def function(source):
    found = {"LIMIT": 3, "partial": functools.partial, "nn": nn}
    exec(source, found)
    return found["f"]


PLAIN = "def f(x, eps=1e-6):\n    return max(x, LIMIT) + eps"


@pytest.mark.parametrize(
    ("source", "equal"),
    [
        ('def f(x: int, eps: float = 1e-6):\n    """Add.\n\n    Text.\n    """\n    return max(x, LIMIT) + eps', True),
        ("def f(x, eps=1e-5):\n    return max(x, LIMIT) + eps", False),
        ("def f(x, eps=1e-6):\n    return max(x, LIMIT) - eps", False),
        ("LIMIT = 4\ndef f(x, eps=1e-6):\n    return max(x, LIMIT) + eps", False),
    ],
)
def test_equal_code_is_equal_apart_from_text(harness, source, equal):
    texts = ["\n".join(harness[1]._function_text(function(code))) for code in (PLAIN, source)]
    assert (texts[0] == texts[1]) == equal


def test_arguments_in_a_partial_count(harness):
    sources = [
        f"def f(x, norm=partial(nn.LayerNorm, eps={eps})):\n    return norm(x)" for eps in ("1e-6", "1e-6", "1e-5")
    ]
    texts = ["\n".join(harness[1]._function_text(function(source))) for source in sources]
    assert texts[0] == texts[1] != texts[2]


def test_the_page_has_every_checked_change():
    page = (HARNESS.parents[1] / "docs" / "timm-history.md").read_text(encoding="utf-8")
    checked = tomlkit.parse((HARNESS / "releases.toml").read_bytes()).unwrap()
    for entry in (*checked["change"], *checked["setting"]):
        assert entry["source"] in page
        assert (entry["noted"] or "silent") in page
