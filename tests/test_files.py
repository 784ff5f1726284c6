from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.files import free_bytes, sealed, sha256_of, unsealed, written_whole

_PLAIN = st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.booleans()), min_size=1)


@given(content=_PLAIN, place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_no_byte_of_a_sealed_line_changes_unnoticed(content, place, value):
    line = sealed(content)
    assert unsealed(line) == content
    changed = bytearray(line)
    changed[place % len(line)] = value
    if bytes(changed) != line and bytes(changed).rstrip(b"\n") != line.rstrip(b"\n"):
        with pytest.raises(ValueError, match=r"checksum|JSON"):
            unsealed(bytes(changed))


def test_a_file_is_complete_or_unchanged(tmp_path):
    path = tmp_path / "file"
    with written_whole(path) as file:
        file.write(b"first")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), written_whole(path) as file:
        file.write(b"second")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"kept")
    (tmp_path / "file").symlink_to(other)
    with written_whole(tmp_path / "file") as file:
        file.write(b"new")
    assert other.read_bytes() == b"kept"
    assert not (tmp_path / "file").is_symlink()


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_free_space_of_a_folder_that_does_not_exist_yet(tmp_path):
    assert (free_bytes(tmp_path / "a" / "b") or 0) > 0
