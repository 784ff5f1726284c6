from __future__ import annotations

import pytest

from embedcore.plugin.budget import Budget, BudgetSpent


def test_stages_end_once_no_time_is_left(monkeypatch):
    left = [5.0]
    monkeypatch.setattr(Budget, "left", lambda self: left[0])
    calls: list[tuple[object, ...]] = []
    stages = Budget(5.0).within(lambda *call: calls.append(call))
    stages("downloading", 0, 0)
    assert calls == [("downloading", 0, 0)]
    left[0] = 0.0
    with pytest.raises(BudgetSpent):
        stages("timing", 0, 10)
    assert len(calls) == 1
