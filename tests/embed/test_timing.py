from __future__ import annotations

import time

import torch

from embedcore.embed.timing import time_forward


def test_rounds_and_warmups_are_counted_and_the_time_is_that_of_the_call():
    calls = []

    def embed(batch):
        calls.append(torch.is_inference_mode_enabled())
        time.sleep(0.01)

    durations = time_forward(embed, torch.zeros(2, 3, 4, 4), rounds=3, warmup_rounds=2)
    assert len(durations) == 3
    assert calls == [True] * 5
    assert all(duration >= 0.01 for duration in durations)
