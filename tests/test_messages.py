from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore import messages
from embedcore.messages import GarbledMessageError, Inbox, send

plain = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20) | st.none(), max_size=3)


def received(pieces):
    inbox = Inbox()
    return [message for piece in pieces for message in inbox.feed(piece)], inbox.pending


@given(st.lists(plain, max_size=5), st.data())
def test_messages_come_whole_however_they_are_cut(sent, data):
    reader, writer = os.pipe()
    for message in sent:
        send(writer, message)
    os.close(writer)
    stream = os.read(reader, 2**16)
    os.close(reader)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert received(pieces) == (sent, False)


@given(plain, st.integers(1, 10**6))
def test_a_message_without_its_end_is_pending(message, cut):
    reader, writer = os.pipe()
    send(writer, message)
    stream = os.read(reader, 2**16)
    os.close(reader)
    os.close(writer)
    assert received([stream[: -1 - cut % (len(stream) - 1)]]) == ([], True)


@pytest.mark.parametrize("line", [b"\xff\x00", b"{", b"3", b"null", b"[1]", b"", b"[" * 100_000])
def test_garbage_is_reported(line):
    with pytest.raises(GarbledMessageError):
        received([line + b"\n"])


def test_a_message_that_never_ends_is_garbage(monkeypatch):
    monkeypatch.setattr(messages, "MAX_BYTES", 100)
    with pytest.raises(GarbledMessageError, match="more than 100 bytes"):
        received([b'{"a": "', b"x" * 60, b"x" * 60])
