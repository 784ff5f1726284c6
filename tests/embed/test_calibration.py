"""The speed of the CPU, on which rough forecasts of the time are based."""

from __future__ import annotations

import pytest
import torch

from embedcore.embed.calibration import cpu_gmacs_per_s


def test_the_speed_is_that_of_a_processor():
    assert 0.1 < (cpu_gmacs_per_s(0.01) or 0.0) < 1e5


def test_torch_without_a_kernel_tells_nothing(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(torch, "mm", refuse)
    assert cpu_gmacs_per_s(0.01) is None
