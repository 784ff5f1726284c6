from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from embedcore.errors import WeightsDamaged, WeightsUnavailable
from embedcore.zoo.state_files import differences, mismatch, read_state

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, on pickles that are not its own
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.float16)}


class Payload:
    """An object whose pickle creates a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.path),)


def zip_file(content: object, path: Path) -> None:
    torch.save(content, path)


def legacy_file(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def bare_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def tar_file(content: object, path: Path) -> None:
    """The oldest format of torch: a tar archive of pickles."""
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            block = pickle.dumps(content if name == "pickle" else 0)
            member = tarfile.TarInfo(name)
            member.size = len(block)
            archive.addfile(member, io.BytesIO(block))


LAYOUTS: list[Callable[[object, Path], None]] = [zip_file, legacy_file, bare_pickle, tar_file]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors", ".tar", ""])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, layout, suffix):
    path = tmp_path / f"weights{suffix}"
    layout({**STATE, "extra": Payload(tmp_path / "ran")}, path)
    with pytest.raises(WeightsDamaged, match=r"is not a (file of plain tensors|complete safetensors file)") as caught:
        read_state(path)
    assert not (tmp_path / "ran").exists()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_payload_of_these_tests_works(tmp_path, layout):
    """Without weights_only the same files run their code, so the refusals above have no other cause."""
    path = tmp_path / "weights.pth"
    layout({**STATE, "extra": Payload(tmp_path / "ran")}, path)
    if layout is tar_file:
        with tarfile.open(path) as archive:
            pickle.loads(archive.extractfile("pickle").read())
    elif layout is bare_pickle:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("layout", [zip_file, legacy_file])
def test_plain_tensors_are_read(tmp_path, layout):
    layout(STATE, tmp_path / "a.pth")
    state, part = read_state(tmp_path / "a.pth")
    assert part == "" and list(state) == list(STATE) and all(torch.equal(state[key], STATE[key]) for key in STATE)


def test_the_state_within_a_checkpoint_is_refused_with_its_code(tmp_path):
    zip_file({"epoch": 1, "state_dict": STATE, "optimizer": Payload(tmp_path / "ran")}, tmp_path / "a.pth")
    with pytest.raises(WeightsDamaged, match="not a file of plain tensors"):
        read_state(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("version", ["2.5.1+cu121", "2.9.1", "1.13.1"])
def test_a_torch_with_an_unsafe_weights_only_reads_no_pickle(tmp_path, monkeypatch, version):
    zip_file(STATE, tmp_path / "a.pth")
    save_file(STATE, tmp_path / "a.safetensors")
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(WeightsUnavailable, match=r"cannot read safely: upgrade to torch 2\.10, or save .*safetensors"):
        read_state(tmp_path / "a.pth")
    assert list(read_state(tmp_path / "a.safetensors")[0]) == list(STATE)


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], "text", {1: torch.zeros(1)}])
def test_anything_but_a_state_dict_is_reported(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsDamaged, match="not a state dict"):
        read_state(tmp_path / "a.pth")


def _bytes_of(layout: Callable[[object, Path], None], folder: Path) -> bytes:
    layout(STATE, folder / "whole")
    return (folder / "whole").read_bytes()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_reported_in_one_line_or_does_no_harm(tmp_path, kind, data):
    """A file that is cut, or has a byte changed, gives tensors or WeightsDamaged: never another error, never code."""
    layout = {"zip": zip_file, "legacy": legacy_file, "safetensors": save_file}[kind]
    whole = bytearray(_bytes_of(layout, tmp_path))
    if data.draw(st.booleans(), "cut"):
        del whole[data.draw(st.integers(0, len(whole) - 1), "length") :]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1), "place")] ^= data.draw(st.integers(1, 255), "bits")
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    path.write_bytes(whole)
    try:
        state, _ = read_state(path)
    except WeightsDamaged as error:
        assert "\n" not in str(error) and len(str(error)) < 500
    else:
        assert all(isinstance(key, str) for key in state)


def test_a_safetensors_header_that_claims_too_much_is_reported(tmp_path):
    whole = save(STATE)
    for content in (
        (1 << 62).to_bytes(8, "little") + whole[8:],
        whole.replace(b'"F32"', b'"F99"'),
        whole[:-1],
        whole + b"more",
        b"",
    ):
        (tmp_path / "a.safetensors").write_bytes(content)
        with pytest.raises(WeightsDamaged, match="not a complete safetensors file"):
            read_state(tmp_path / "a.safetensors")


def test_wrong_shapes_are_counted():
    message = "Error(s)" + "".join(f"\n\tsize mismatch for {name}.weight: copying" for name in "abcd")
    assert mismatch(message) == "does not fit: 4 wrong shapes (a.weight, b.weight, c.weight, …)"
    assert mismatch("something else\nentirely") == ""


def test_differences_name_both_sides():
    assert differences("abcde", "abcde") == ""
    assert differences("xyzw", "ab") == "does not fit: 2 missing keys (a, b); 4 unexpected keys (x, y, z, …)"


@pytest.mark.parametrize("layout", [zip_file, legacy_file])
def test_a_refused_pickle_is_reported_in_whole_words(tmp_path, layout):
    layout(Payload(tmp_path / "made"), tmp_path / "w.pth")
    with pytest.raises(WeightsDamaged) as caught:
        read_state(tmp_path / "w.pth")
    output = str(caught.value)
    assert output == (
        f"{tmp_path / 'w.pth'} is not a file of plain tensors "
        "(it contains posix.mkdir, which is code and is never run); fetch it again, "
        "or save its state dict as .safetensors"
    )
