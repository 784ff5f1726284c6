from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from weight_casts import Casts

from embedcore.embed import precision
from embedcore.embed.precision import autocast, canary_cosine, canary_speedup, choose_precision, multiplies_bf16
from embedcore.errors import UsageError
from embedcore.zoo.backbone import load_backbone

CPU = torch.device("cpu")
WEIGHT = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
BATCH = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))


def backbone_of(embed):
    return SimpleNamespace(embed=embed, module=torch.nn.Identity())


PRODUCT = backbone_of(lambda x: x @ WEIGHT)


@pytest.mark.parametrize(
    ("capabilities", "limit", "multiplies"),
    [
        ({"avx512_bf16": True}, None, True),
        ({"amx_bf16": True}, "DEFAULT", True),
        ({"bf16": True}, "AVX512_CORE_AMX", True),  # the name of Arm's
        ({"avx512_bf16": True}, "AVX512_CORE_VNNI", False),
        ({"avx512_bf16": False, "avx2": True}, None, False),
        ({}, "AVX512_CORE_BF16", False),
    ],
)
def test_a_processor_multiplies_bf16_if_it_can_and_may(monkeypatch, capabilities, limit, multiplies):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert multiplies_bf16() == multiplies
    if not multiplies:
        assert choose_precision("auto", PRODUCT, BATCH) == ("fp32", "")


def test_on_a_processor_bf16_must_agree_and_be_faster(monkeypatch):
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    speedup = 2.0
    monkeypatch.setattr(precision, "canary_speedup", lambda *_: speedup)
    assert choose_precision("auto", PRODUCT, BATCH) == ("bf16", "")
    unsteady = backbone_of(lambda x: x @ WEIGHT if not torch.is_autocast_enabled("cpu") else -(x @ WEIGHT))
    chosen, why = choose_precision("auto", unsteady, BATCH)
    assert chosen == "fp32" and why.startswith("fp32: an embedding in bf16 has a cosine of -")
    not_finite = backbone_of(lambda x: x @ WEIGHT * (torch.nan if torch.is_autocast_enabled("cpu") else 1))
    assert choose_precision("auto", not_finite, BATCH)[0] == "fp32"
    speedup = 1.04
    assert choose_precision("auto", PRODUCT, BATCH) == ("fp32", "fp32: bf16 runs at 1.04 times its speed")


@pytest.mark.parametrize(("fp32", "rounds"), [(3.0, precision.CANARY_ROUNDS), (4.0, 1), (1.0, 1)])
def test_the_speedup_is_that_of_the_fastest_passes_and_is_measured_again_unless_it_is_clear(monkeypatch, fp32, rounds):
    clock, passes = 0.0, []

    def embed(x):
        nonlocal clock
        half = torch.is_autocast_enabled("cpu")
        passes.append(half)
        clock += (2.0 if half else fp32) + len(passes) / 100
        return x @ WEIGHT

    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock)
    assert canary_speedup(backbone_of(embed), BATCH, "bf16") == pytest.approx((fp32 + 0.01) / 2.02)
    assert passes == [False, True] * rounds


@pytest.mark.parametrize("spec", ["fp32", "bf16", "fp16"])
def test_explicit_precision_is_taken_as_it_is(spec):
    assert choose_precision(spec, PRODUCT, BATCH) == (spec, "")


def test_unknown_precision_is_named():
    with pytest.raises(UsageError, match="fp8"):
        choose_precision("fp8", PRODUCT, BATCH)


def test_autocast_changes_the_product_and_the_canary_sees_how_much():
    with autocast("bf16", CPU, PRODUCT.module):
        assert PRODUCT.embed(BATCH).dtype == torch.bfloat16
    with autocast("fp32", CPU, PRODUCT.module):
        assert PRODUCT.embed(BATCH).dtype == torch.float32
    assert 0.999 < canary_cosine(PRODUCT, BATCH, "bf16") < 1.0

    def breaks(x):  # a model that depends on small differences, which bf16 rounds away
        big = (x * 0 + 1e4) @ torch.ones(64, 32)
        return (big + x @ WEIGHT * 1e-2) - 64e4

    assert canary_cosine(backbone_of(breaks), BATCH, "bf16") < 0.999


@pytest.mark.parametrize(
    ("emulated", "cosine", "expected"), [(True, 1.0, "fp32"), (False, 1.0, "bf16"), (False, 0.9, "fp32")]
)
def test_on_a_card_bf16_must_be_native_and_agree(monkeypatch, emulated, cosine, expected):
    """Some cards, such as a T4, report bf16 support unless emulation is excluded; the query is for the current card."""
    current = []

    class Current:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            current.append(self.device)

        def __exit__(self, *error):
            current.pop()

    def supported(including_emulation=True):
        assert current == ["cuda:1"]
        return including_emulation or not emulated

    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(precision, "canary_cosine", lambda *_: cosine)
    device = type("Device", (str,), {"type": "cuda"})("cuda:1")
    assert choose_precision("auto", PRODUCT, SimpleNamespace(device=device))[0] == expected


@pytest.mark.parametrize("model", ["test_vit.r160_in1k", "test_resnet.r160_in1k"])
def test_each_weight_is_cast_once_for_all_rounds(model):
    backbone = load_backbone(model, weights="random")
    batch = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    assert not any(weight.requires_grad for weight in backbone.module.parameters())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        plain = backbone.embed(batch)
    casts = Casts(backbone.module)
    with autocast("bf16", CPU, backbone.module), casts:
        rounds = [backbone.embed(batch) for _ in range(3)]
    assert max(casts.counted.values()) == 1
    assert sum(casts.counted.values()) > 10
    for output in rounds:
        assert torch.equal(output, plain)
        assert not output.requires_grad
    assert not any(weight.requires_grad for weight in backbone.module.parameters())


def test_the_canary_casts_each_weight_once(monkeypatch):
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(precision, "CANARY_COSINE", -1)
    backbone = load_backbone("test_vit.r160_in1k", weights="random")
    casts = Casts(backbone.module)
    with casts:
        choose_precision("auto", backbone, torch.zeros(2, 3, 160, 160))
    assert max(casts.counted.values()) == 1


def test_fp32_inside_bf16_is_fp32():
    with autocast("bf16", CPU, PRODUCT.module), autocast("fp32", CPU, PRODUCT.module):
        assert PRODUCT.embed(BATCH).dtype == torch.float32
