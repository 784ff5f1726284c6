from __future__ import annotations

import pytest

from embedcore.plugin.budget import Budget, BudgetSpent


def test_stages_and_progress_end_once_no_time_is_left(monkeypatch):
    left = [5.0]
    monkeypatch.setattr(Budget, "left", lambda self: left[0])
    told: list[tuple[object, ...]] = []
    stages = Budget(5.0).within_stages(lambda *call: told.append(call))
    progress = Budget(5.0).within(lambda *call: told.append(call))
    stages("downloading", 0, 0)
    progress(1, 2)
    assert told == [("downloading", 0, 0), (1, 2)]
    left[0] = 0.0
    for call in (lambda: stages("timing", 0, 10), lambda: progress(2, 2)):
        with pytest.raises(BudgetSpent):
            call()
    assert len(told) == 2
