from __future__ import annotations

import pytest
import torch

from embedcore.embed.precision import autocast, canary_cosine, choose_precision
from embedcore.errors import UsageError

WEIGHT = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
BATCH = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))


def product(x):
    return x @ WEIGHT


def test_auto_is_fp32_on_the_cpu():
    assert choose_precision("auto", product, BATCH) == "fp32"


@pytest.mark.parametrize("spec", ["fp32", "bf16", "fp16"])
def test_explicit_precision_is_taken_as_it_is(spec):
    assert choose_precision(spec, product, BATCH) == spec


def test_unknown_precision_is_named():
    with pytest.raises(UsageError, match="fp8"):
        choose_precision("fp8", product, BATCH)


def test_autocast_changes_the_product_and_the_canary_sees_how_much():
    with autocast("bf16", BATCH.device):
        assert product(BATCH).dtype == torch.bfloat16
    with autocast("fp32", BATCH.device):
        assert product(BATCH).dtype == torch.float32
    assert 0.999 < canary_cosine(product, BATCH, "bf16") < 1.0

    def breaks(x):  # a model whose small differences are all that counts: bf16 rounds them away
        big = (x * 0 + 1e4) @ torch.ones(64, 32)
        return (big + product(x) * 1e-2) - 64e4

    assert canary_cosine(breaks, BATCH, "bf16") < 0.999
