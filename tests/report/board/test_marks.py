"""The marks of a result, alike in every output."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.report.board.export import csv_report, json_report
from embedcore.report.board.markdown import markdown_report
from embedcore.report.board.marks import doubts, mark_words, scatter
from embedcore.report.board.rows import columns_data, rows
from embedcore.report.board.terminal import terminal_report
from embedcore.results.leaderboard import Leaderboard, Row
from embedcore.results.ranking import ModelRank
from embedcore.results.result import Result

Make = Callable[..., Result]

QUIET = (1.0, 1.01, 1.02, 1.01)
SPEEDS = {"images_per_s": {"forward": 100.0, "end_to_end": 97.0}, "durations": QUIET}

DOUBTFUL = {
    "smaller batch, for lack of memory": {"batch_decayed": True},
    "the machine was busy with other work": {"crowded": 0.3},
    "the hypervisor took the processor away": {"stolen": 0.3},
    "the rounds vary by more than 15 %": {"durations": (1.0, 1.0, 1.2, 1.2)},
    "faster with reading the pixels than without": {"images_per_s": {"forward": 100.0, "end_to_end": 103.0}},
}


@pytest.mark.parametrize(("why", "fields"), DOUBTFUL.items())
def test_why_a_speed_is_doubtful(result_of: Make, why: str, fields: dict[str, Any]) -> None:
    assert doubts(result_of(**(SPEEDS | fields))) == [why]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"crowded": 0.2, "stolen": 0.2},
        {"durations": (1.0, 1.0, 1.0, 1.0, 1.0, 3.0)},  # one slow round does not move the quartiles
        {"durations": (1.0,)},
        {"durations": ()},
        {"images_per_s": {"forward": 100.0, "end_to_end": 101.9}},
        {"images_per_s": {}, "durations": ()},
    ],
)
def test_speeds_without_a_doubt(result_of: Make, fields: dict[str, Any]) -> None:
    assert doubts(result_of(**(SPEEDS | fields))) == []


@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=12))
def test_the_scatter_is_numpys_interquartile_range(durations: list[float]) -> None:
    result = Result.make("a.b", family="vit", status="ok", scores={"acc": 0.5, "acc5": 0.5}, durations=durations)
    low, middle, high = np.percentile(durations, (25, 50, 75))
    assert scatter(result) == pytest.approx((high - low) / middle)


def test_marks_in_plain_words(result_of: Make) -> None:
    own = result_of(weights={"source": "own:a.pth", "classifier": "left out", "resampled": "x"}, crowded=0.5)
    tied = Row(1, own, ModelRank("a.b", 1, (1, 2), 0.5, True))
    assert mark_words(tied) == (
        "tied for first; own model; classifier left out; tensors resized; "
        "doubtful speed: the machine was busy with other work"
    )
    random = Row(1, result_of(weights={"source": "random", "id": "seed:0"}, licence="cc-by-nc-4.0", token_mean=True))
    assert mark_words(random) == "random weights; mean of tokens; not for commercial use"
    assert mark_words(Row(1, result_of())) is None


def test_every_output_has_the_same_marks(board_of: Callable[..., Leaderboard], result_of: Make) -> None:
    busy = result_of(crowded=0.5, stolen=0.5, licence="cc-by-nc-4.0")
    calm = result_of("resnet18.a1_in1k", 0.4, family="resnet")
    failed = Result.make("x.y", family="vit", status="oom", reason="out of memory")
    board = board_of([busy, calm, failed])
    words = [mark_words(Row(1, busy)), None]
    assert words[0] is not None and words[0].count("doubtful speed") == 2
    lines = list(csv.DictReader(io.StringIO(csv_report([board], {}))))
    assert [line["marks"] for line in lines] == [words[0], "", ""]
    assert [row["marks"] for row in json.loads(json_report([board], {}, {}))["rows"]] == words
    shown = rows(board)
    assert [row.get("marks") for row in shown] == words
    assert shown[0]["doubts"] == "; ".join(doubts(busy)) and "doubts" not in shown[1]
    place = [column["key"] for column in columns_data(board)].index("images_per_s")
    assert [row["cells"][place] for row in shown] == ["102!", "102"]
    assert "marks" in next(column["csv"] for column in columns_data(board) if column["key"] == "model")
    for text in (terminal_report([board], width=200), markdown_report([board])):
        assert "102!" in text.replace("\\", "")
        assert "! the machine was busy with other work: speed not comparable" in text
        assert "! the hypervisor took the processor away: speed not comparable" in text
