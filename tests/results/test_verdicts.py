from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embedcore.results import verdicts
from embedcore.results.verdicts import (
    pack_classes,
    pack_outcomes,
    pack_sketch,
    pack_verdicts,
    unpack_classes,
    unpack_outcomes,
    unpack_sketch,
    unpack_verdicts,
)
from embedcore.retrieval.outcomes import Outcomes

# (hits, first) of one query: a hit at rank 1 is one of the hits, and five hits include it.
_VERDICT = st.tuples(st.integers(0, 5), st.booleans()).filter(lambda v: v not in ((0, True), (5, False)))


@given(st.lists(_VERDICT, max_size=300), st.sampled_from([np.int64, np.uint8, np.int32]))
def test_verdicts_round_trip(pairs: list[tuple[int, bool]], dtype: type[np.integer]) -> None:
    hits = np.array([hit for hit, _ in pairs], dtype=dtype)
    first = np.array([one for _, one in pairs], dtype=bool)
    text = pack_verdicts(hits, first)
    assert text.isascii()
    back = unpack_verdicts(text)
    assert back.hits.dtype == np.uint8
    assert back.first.dtype == np.bool_
    assert back.hits.tolist() == hits.tolist()
    assert back.first.tolist() == first.tolist()


def test_verdicts_are_one_byte_a_query_before_compression() -> None:
    raw = zlib.decompress(base64.b64decode(pack_verdicts([5, 0, 2, 2], [True, False, False, True])))
    assert list(raw) == [0b1101, 0b0000, 0b0010, 0b1010]


@pytest.mark.parametrize(
    ("hits", "first"),
    [
        ([6], [True]),
        ([-1], [False]),
        ([0], [True]),
        ([5], [False]),
        ([1, 2], [True]),
        ([[1]], [[True]]),
        ([1.0], [True]),
        ([1], [1]),
    ],
)
def test_impossible_verdicts_are_refused(hits: list[int], first: list[bool]) -> None:
    with pytest.raises(ValueError, match="hits"):
        pack_verdicts(hits, first)


def _packed(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "not base64!",
        "ümlaut",
        base64.b64encode(b"not zlib").decode(),
        base64.b64encode(zlib.compress(b"\x01" * 50)[:-3]).decode(),
        base64.b64encode(zlib.compress(b"\x01") + b"more").decode(),
        _packed(b"\x10"),
        _packed(b"\x07"),
        _packed(b"\x08"),
        _packed(b"\x05"),
        "",
    ],
)
def test_damaged_verdicts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"verdicts|hits"):
        unpack_verdicts(text)


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "_MOST_QUERIES", 1000)
    assert len(unpack_verdicts(_packed(b"\x00" * 1000)).hits) == 1000
    with pytest.raises(ValueError, match="more than 1000 queries"):
        unpack_verdicts(_packed(b"\x00" * 1001))


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.just(64)), elements=st.floats(-(2.0**99), 2.0**99, width=32))
)
def test_sketch_round_trip(sketch: np.ndarray) -> None:
    back = unpack_sketch(pack_sketch(sketch))
    assert back.dtype == np.float32
    assert np.array_equal(back, sketch)


@pytest.mark.parametrize("shape", [(9, 64), (0, 64), (8, 63), (512,)])
def test_sketch_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a sketch must be"):
        pack_sketch(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_sketch_must_be_finite(value: float) -> None:
    sketch = np.full((8, 64), value, np.float32)
    with pytest.raises(ValueError, match="finite"):
        pack_sketch(sketch)
    with pytest.raises(ValueError, match="finite"):
        unpack_sketch(base64.b64encode(sketch.tobytes()).decode())


@pytest.mark.parametrize("text", ["", "AAAA", "?", base64.b64encode(bytes(9 * 256)).decode()])
def test_damaged_sketch_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="sketch"):
        unpack_sketch(text)


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_classes_come_back(classes: list[int]) -> None:
    assert unpack_classes(pack_classes(classes)).tolist() == classes


@pytest.mark.parametrize("text", ["", "%%%", "AAAA", pack_classes([1, 2])[:-4]])
def test_invalid_packed_classes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="query classes"):
        unpack_classes(text)


@given(
    st.integers(1, 254).flatmap(
        lambda tries: st.tuples(
            st.just(tries), st.lists(st.tuples(st.integers(0, tries), st.booleans()), min_size=1, max_size=200)
        )
    )
)
def test_outcomes_round_trip(made: tuple[int, list[tuple[int, bool]]]) -> None:
    tries, pairs = made
    judged = np.array([True, *(one for _, one in pairs)])
    right = np.array([tries, *(number for number, _ in pairs)], dtype=np.uint8)
    back = unpack_outcomes(pack_outcomes(Outcomes(right, tries, judged)))
    assert back.judged is not None
    assert (back.right.tolist(), back.tries) == (np.where(judged, right, 0).tolist(), tries)
    assert back.judged.tolist() == judged.tolist()


def test_outcomes_of_all_queries_are_one_byte_a_query() -> None:
    text = pack_outcomes(Outcomes(np.array([True, False, True]), 1))
    assert list(zlib.decompress(base64.b64decode(text))) == [1, 1, 0, 1]
    everything = unpack_outcomes(text).judged
    assert everything is not None and everything.all()


@pytest.mark.parametrize(
    "text", ["", "%%", _packed(b""), _packed(b"\x01"), _packed(b"\x00\x00"), _packed(b"\x01\x02"), _packed(b"\xff\x01")]
)
def test_damaged_outcomes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="outcomes"):
        unpack_outcomes(text)


def test_outcomes_without_a_judged_query_are_refused() -> None:
    with pytest.raises(ValueError, match="judge no query"):
        unpack_outcomes(_packed(b"\x01\xff\xff"))
