from __future__ import annotations

from embedcore.report.board.board_page import score_ranges


def test_the_axis_of_the_bars_is_the_range_of_the_intervals() -> None:
    rows = [{"acc": 0.9, "acc_low": 0.85, "acc_high": 0.95}, {"acc": 0.7, "acc5": 0.2}, {"acc": 0.8}]
    assert score_ranges(rows, ["acc", "acc5"]) == {"acc": (0.7, 0.95), "acc5": (0.2, 0.2)}
