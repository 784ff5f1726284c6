from __future__ import annotations

import pytest
import torch

from embedcore.embed.device import choose_device
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
