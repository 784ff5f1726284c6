from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedcore.measure.output_tail import LINE_CHARACTERS, TAIL_BYTES, OutputTail


@given(st.lists(st.binary(max_size=40)), st.integers(1, 50))
def test_the_tail_is_the_end_of_all_that_was_fed(pieces, limit):
    tail = OutputTail(limit)
    for piece in pieces:
        tail.feed(piece)
    everything = b"".join(pieces)[-limit:].decode(errors="replace")
    assert tail.text(lines=1000) == "\n".join(everything.splitlines())


def test_the_last_lines_and_the_beginning_of_long_ones():
    tail = OutputTail()
    for number in range(100_000):
        tail.feed(b"line %d\n" % number)
    tail.feed(b"x" * 2000)
    lines = tail.text(lines=3).splitlines()
    assert lines[:2] == ["line 99998", "line 99999"]
    assert lines[2] == "x" * LINE_CHARACTERS + "…"


def test_memory_is_bounded():
    tail = OutputTail()
    for _ in range(100):
        tail.feed(b"x" * 50_000)
        assert len(tail._kept) <= 2 * TAIL_BYTES
