"""Leaderboards of runs on images without labels: their words, charts and the statement on trust."""

from __future__ import annotations

import json
from typing import Any

import pytest
import synthetic_runs as made

from embedcore.report.board import answer, captions, unlabelled_trust
from embedcore.report.board.charts import charts
from embedcore.report.board.findings import facts, findings
from embedcore.report.board.rows import columns_data, rows
from embedcore.report.board.terminal import terminal_report
from embedcore.report.board.unlabelled_trust import Agreement, trust_lines
from embedcore.report.html.drawing import svg
from embedcore.results.leaderboard import Leaderboard, boards_of

IMAGES = 200


def board(images: int = IMAGES, **recalls: float) -> Leaderboard:
    infos = [
        made.by_views(f"{model}.x", images, recall, family="resnet", pretraining=f"in{number}k", architecture="one")
        for number, (model, recall) in enumerate((recalls or {"a": 0.7, "b": 0.68, "c": 0.3}).items())
    ]
    return boards_of(made.as_run(made.saved_by_views(infos, images)), {"resnet": "ResNet"})[0]


def test_the_answer_speaks_of_views() -> None:
    found = answer.answer(board())
    assert found is not None and found.take.score.endswith("%), a random crop finds its own image first.")
    assert found.trust[1].question == "Would labels give this order?"
    assert answer.measured_on(board()) == "3 models measured on 200 images without labels, by agreement of views"
    labels = [pick.label for pick in found.picks]
    assert labels and not [label for label in labels if "accurate" in label]
    few = answer.order_trust(board(images=8))
    assert few.lines == ("With only 8 images, differences mean little.",)


def test_the_lead_is_in_images() -> None:
    lines = captions.leader_lines(board(), "view_recall", most_names=3)
    assert "images like these would separate the two best; there are 200" in " ".join(lines)
    assert captions.dataset_line(board(images=8).dataset) == (
        "photos: 8 images without labels, a view of each; only 8 images: too few for meaningful intervals"
    )


def test_columns_and_findings() -> None:
    made_rows, found = rows(board()), {column["key"] for column in columns_data(board())}
    assert {"view_recall", "view_recall5", "rank_view_recall5", "near_duplicates", "effective_rank"} <= found
    assert not [key for key in {*found, *(key for row in made_rows for key in row)} if key.startswith("acc")]
    assert [row["model"] for row in made_rows][2] == "c.x" and made_rows[0]["effective_rank"] == 31.4
    assert findings(board())[0].heading == "Best by view_recall5"
    assert dict(facts(board(), {}, {}))["Labels"].startswith("none: ")
    shown = terminal_report([board()], width=160)
    assert "view_recall" in shown and "eff. rank" in shown and "near dup." in shown and " acc" not in shown


def test_every_chart_is_drawn_by_view_recall() -> None:
    found = charts(board(), rows(board()), None)
    names = [chart.name for chart in found]
    assert names[:3] == ["leaders-view_recall", "leaders-view_recall5", "view_recall-speed"]
    assert {"families", "pretraining", "family-resnet"} <= {*names}
    for chart in found:
        shown: Any = json.dumps(chart.spec) + chart.title + chart.note + chart.section
        assert "acc" not in shown and svg(chart.standalone)


def test_the_statement_on_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        unlabelled_trust, "MEASURED", (Agreement("emoji", 20, 4, 0.812), Agreement("digits", 9, 3, -0.1))
    )
    listed, failed = trust_lines()
    assert "0.81 (emoji, 20 embeddings), -0.10 (digits, 9 embeddings)" in listed
    assert failed == "it failed on digits: label some images if you can"
    assert listed in captions.legend(board(), {}, {})
    monkeypatch.setattr(unlabelled_trust, "MEASURED", (Agreement("emoji", 20, 4, 0.812),))
    assert len(trust_lines()) == 1


def test_the_measured_values_are_agreements() -> None:
    for each in unlabelled_trust.MEASURED:
        assert -1 <= each.tau <= 1 and each.embeddings >= each.networks >= 3 and each.images
