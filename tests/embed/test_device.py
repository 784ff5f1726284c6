from __future__ import annotations

import pytest
import torch

from embedcore.embed import device
from embedcore.embed.device import (
    ARITHMETIC,
    changed_arithmetic,
    choose_channels_last,
    choose_device,
    device_name,
    place,
    set_arithmetic,
    use_device,
)
from embedcore.errors import UsageError


def test_cpu():
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("spec", ["gpu", "cuda:x", "meta", "xla:0"])
def test_unknown_device_is_named(spec):
    with pytest.raises(UsageError, match=spec):
        choose_device(spec)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("spec", ["cuda", "cuda:1"])
def test_absent_cuda_is_a_usage_error(spec):
    with pytest.raises(UsageError, match="no CUDA device"):
        choose_device(spec)
    assert choose_device("auto").type in ("cpu", "mps")


@pytest.fixture
def settings():
    """The settings that `use_device` changes, with other values, restored afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    cudnn.benchmark = False
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


@pytest.mark.parametrize(("spec", "index"), [("auto", 0), ("cuda", 0), ("cuda:1", 1)])
def test_the_card_in_use_is_the_current_one(monkeypatch, settings, spec, index):
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert choose_device(spec) == torch.device("cuda", index)
    assert current == []
    assert use_device(spec) == torch.device("cuda", index)
    assert current == [torch.device("cuda", index)]


def test_torch_is_set_up_to_measure(settings):
    assert use_device("cpu") == torch.device("cpu")
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    "change",
    [
        lambda: None,
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(torch.backends, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.cudnn, "allow_tf32", True),
    ],
    ids=["as-it-is", "matmul", "all", "convolutions", "old-name"],
)
def test_settings_override_earlier_ones_of_torch(settings, change):
    change()
    set_arithmetic()
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    assert {matmul.allow_tf32, cudnn.allow_tf32} == {ARITHMETIC["tf32"]} == {False}
    assert cudnn.benchmark is ARITHMETIC["cudnn_benchmark"]
    assert {matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision} == {"ieee"}
    assert torch.get_float32_matmul_precision() == "highest"
    assert cudnn.benchmark_limit == ARITHMETIC["cudnn_benchmark_limit"] == 3
    assert changed_arithmetic() == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: torch.set_float32_matmul_precision("high"), "tf32 is True"),
        (lambda: setattr(torch.backends.cudnn, "allow_tf32", True), "tf32 is True"),
        (lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32"), "tf32 is True"),
        (lambda: setattr(torch.backends.cudnn, "benchmark", False), "cudnn_benchmark is False"),
        (lambda: setattr(torch.backends.cudnn, "benchmark_limit", 10), "cudnn_benchmark_limit is 10"),
    ],
)
def test_what_a_model_has_changed_is_read_back(settings, change, words):
    set_arithmetic()
    change()
    assert changed_arithmetic().endswith(f" while it ran: {words}")


def test_the_name_of_a_processor_has_its_threads(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    name = device_name(torch.device("cpu"))
    assert name.endswith(", 2 threads") and len(name) > len(", 2 threads")
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: AMD EPYC 7B13\nprocessor\t: 1\nmodel name\t: other\n")
    assert device._processor(info) == "AMD EPYC 7B13"
    assert device._processor(tmp_path / "none")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert device_name(torch.device("cpu")).endswith(", 1 thread")


def test_the_name_of_a_card_is_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert device_name(torch.device("cuda", 1)) == "card 1"
    assert device_name(torch.device("mps")).startswith("Apple MPS")


@pytest.mark.parametrize(
    ("kind", "precision", "seconds", "expected"),
    [
        ("cpu", "fp32", None, True),
        ("mps", "fp32", None, True),
        ("cuda", "bf16", None, True),
        ("cuda", "fp16", None, True),
        ("cuda", "fp32", {True: 1.0, False: 1.1}, True),
        ("cuda", "fp32", {True: 1.1, False: 1.0}, False),
    ],
)
def test_channels_last_on_a_card_in_fp32_only_if_it_is_faster(kind, precision, seconds, expected):
    assert choose_channels_last(torch.device(kind), precision, seconds and seconds.get) is expected


@pytest.mark.parametrize("channels_last", [True, False])
def test_weights_are_placed_in_either_layout_again_and_again(channels_last):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv3d(3, 8, 3))
    weight = module[0].weight.detach().clone()
    place(module, torch.device("cpu"), channels_last=not channels_last)
    place(module, torch.device("cpu"), channels_last=channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert module[0].weight.is_contiguous(memory_format=layout)
    assert torch.equal(module[0].weight, weight)
