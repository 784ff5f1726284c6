"""The data of the details of a model in the page."""

from __future__ import annotations

from collections.abc import Callable

from embedcore.report.board.details import details, settings
from embedcore.report.board.recipe import recipe
from embedcore.results.leaderboard import Leaderboard
from embedcore.results.result import Result

TRANSFORM = {"crop_pct": 0.9, "crop_mode": "center", "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}


def test_settings_and_code_are_read_back_from_shared_texts(
    board_of: Callable[..., Leaderboard], result_of: Callable[..., Result]
) -> None:
    board = board_of([result_of(f"vit_{n}.in1k", 0.5 - n / 10, transform=TRANSFORM) for n in range(3)] + [result_of()])
    found = details(board, None)
    texts = found["texts"]
    assert len(texts) == len(set(texts))
    for row, more in zip(board.by_acc, found["details"], strict=True):
        read = [texts[place] for place in more["settings"]]
        assert list(zip(read[::2], read[1::2], strict=True)) == settings(row.result)
        assert "".join(f"{texts[place]}\n" for place in more["code"]) == recipe(row.result)
    assert {bool(recipe(row.result)) for row in board.by_acc} == {True, False}
