from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.images.audit import Finding, Findings
from embedcore.images.decode import ImageFacts
from embedcore.images.digests import Digests, numbered
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.workers import PixelReader

DIGESTS = st.lists(st.sampled_from(["00" * 32, "00" * 31 + "01", "ab" + "00" * 31, "ab" * 32, "ff" * 32]), max_size=12)


def compact(digests: list[str]) -> Digests:
    return Digests(np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 32))


@settings(deadline=None)
@given(DIGESTS, st.integers(0, 12), st.integers(0, 12))
def test_they_are_a_sequence_of_text(digests: list[str], start: int, stop: int) -> None:
    found = compact(digests)
    assert list(found) == digests and len(found) == len(digests)
    assert [found[place] for place in range(len(found))] == digests
    assert list(found[start:stop]) == digests[start:stop]
    rows = np.arange(len(digests))[::-2]
    assert list(found[rows]) == [digests[row] for row in rows]
    assert list(pickle.loads(pickle.dumps(found[start:stop]))) == digests[start:stop]


@settings(deadline=None)
@given(DIGESTS)
def test_equal_digests_have_equal_numbers(digests: list[str]) -> None:
    for numbers in (numbered(compact(digests)), numbered(digests)):
        assert len(set(zip(numbers.tolist(), digests, strict=True))) == len(set(digests)) == len(set(numbers.tolist()))


def test_the_fingerprint_is_that_of_earlier_versions(make_folder) -> None:
    root = make_folder({"query/été": 2, "query/b": 1, "reference/été": 1, "reference/b": 2})
    dataset = load_dataset(root)
    lines = []
    for row, name in enumerate(dataset.names):
        side, label, _ = name.split("/")
        content = hashlib.sha256((root / name).read_bytes()).hexdigest()
        encoded = label.encode()
        lines.append(b"%d:%s%d%d%s\n" % (len(encoded), encoded, side == "query", side != "query", content.encode()))
        assert dataset.digests[row] == content
    assert dataset.fingerprint == hashlib.sha256(b"".join(lines)).hexdigest()


FACTS = st.builds(
    ImageFacts,
    st.integers(1, 2**31 - 1),
    st.integers(1, 2**31 - 1),
    st.sampled_from(["RGB", "L", "I;16"]),
    st.sampled_from(["JPEG", "PNG"]),
    st.booleans(),
    st.none() | st.integers(0, 2**64 - 1),
)
FINDINGS = st.lists(
    st.builds(Finding, st.just("ab" * 32), FACTS | st.none())
    | st.builds(Finding, st.sampled_from(["", "cd" * 32]), st.none(), st.text(min_size=1, max_size=9))
)


@settings(deadline=None)
@given(FINDINGS)
def test_findings_are_kept(findings: list[Finding]) -> None:
    kept = Findings(len(findings))
    for index, finding in enumerate(findings):
        kept.keep(index, finding)
    assert list(kept) == findings
    assert kept.animated() == [index for index, one in enumerate(findings) if one.facts and one.facts.animated]
    assert [*kept.reasons.values()] == [one.reason for one in findings if one.reason]


def test_a_worker_gets_the_images_of_its_block_only(make_folder, tmp_path: Path) -> None:
    dataset = load_dataset(make_folder({"a": 40, "b": 40}, size=(4, 4)))
    reader = PixelReader(dataset.images, dataset.digests, Geometry(4, 4, "bicubic", 0.9, "center"))
    part = reader.part(32, 64)
    assert len(part) == 32 and part.source.items == dataset.images.items[32:64]
    assert len(pickle.dumps(reader.of((), ()))) < 1000 and len(pickle.dumps(part)) < 3000
    for row in range(32):
        np.testing.assert_array_equal(part.pixels(row), reader.pixels(32 + row))
    with pytest.raises(IndexError):
        part.pixels(32)
