"""Ranks with intervals and marks, in every table."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.report.board.columns import cut_middle
from embedcore.report.board.markdown import markdown_report
from embedcore.report.board.terminal import terminal_report
from embedcore.report.report_folder import csv_report, json_report
from embedcore.results.leaderboard import build
from embedcore.results.ranking import rank_if_possible

CLASSES = np.repeat(np.arange(40), 4)
LONG = "vit_mediumd_patch16_reg4_gap_384.sbb2_e200_in12k_ft_in1k"
ACCS = {LONG: 0.8, "vit_b.x": 0.78, "vit_c.x": 0.35, "resnet_a.x": 0.35, "resnet_b.x": 0.05}


def board(accs=ACCS, classes=CLASSES, **change):
    results = [made.result(m, classes, made.hits_of(m, classes, acc), ci95={"acc": [0, 1]}) for m, acc in accs.items()]
    results[0] |= change
    run = made.as_run(made.saved(results, classes))
    return build(run.results, dataset=run.dataset, rankings=rank_if_possible(run.results, run.dataset))


def tables(text):
    """Cells of the rows of each table of the terminal, by its heading."""
    found = {}
    lines = text.splitlines()
    for place, line in enumerate(lines):
        if re.fullmatch(r"[- ]*-", line) and "--" in line:
            rows = lines[place + 1 :]
            stop = next((i for i, row in enumerate(rows) if not re.match(r" *\S+ +\d", row)), len(rows))
            found[lines[place - 2]] = [lines[place - 1].split(), *(row.split() for row in rows[:stop])]
    return found


@pytest.mark.parametrize("width", [80, 120, 200])
def test_every_table_has_the_ranks_and_the_marks(width):
    text = terminal_report([board()], width=width)
    assert max(map(len, text.splitlines())) <= width
    found = tables(text)
    assert len(found) == 5
    for heading, rows in found.items():
        assert "ranks" in rows[0], heading
    overall = found["Overall by acc (5 models)"]
    assert [row[:2] for row in overall[1:]] == [["1≈", "1–2"], ["2≈", "1–2"], ["3", "3–4"], ["4", "3–4"], ["5", "5"]]
    (long,) = {row[2] for row in overall[1:3]} - {"vit_b.x"}
    assert long == cut_middle(LONG, len(long)) and (width == 80 or long == LONG)
    # Ranks in a family are those among its models.
    assert [row[:3] for row in found["resnet (2 models)"][1:]] == [["1", "1", "resnet_a.x"], ["2", "2", "resnet_b.x"]]
    assert [row[:2] for row in found["vit (3 models)"][1:]] == [["1≈", "1–2"], ["2≈", "1–2"], ["3", "3"]]
    assert text.count("≈ tied for first: no model is significantly better") == 4  # not below the table of resnet


def test_an_estimate_of_classes_beyond_sense_is_in_words():
    classes = np.repeat(np.arange(20), [1600, *[20] * 19])
    words = " ".join(terminal_report([board({"a.x": 0.62, "b.x": 0.6}, classes)], width=80).split())
    assert "2 of 2 models are tied for first" in words and "like these would separate" not in words
    assert "no number of classes is known to separate the two best: they differ too little, or one class has" in words


def test_tied_leaders_are_below_the_overall_table():
    words = " ".join(terminal_report([board()], width=80).split())
    assert re.search(r"2 of 5 models are tied for first: \S+, \S+ about", words)
    needed = int(
        re.search(r"about ([\d,]+) classes like these would separate the two best; there are 40", words)[1].replace(
            ",", ""
        )
    )
    assert needed > 40
    alone = terminal_report([board({"a.x": 0.9, "b.x": 0.2})], width=80)
    assert alone.count("\na.x is significantly better than all others") == 2 and "≈" not in alone
    assert "the two best are equal in acc" in terminal_report([board({"a.x": -1, "b.x": -1})], width=80)


def test_markdown_has_the_same():
    text = markdown_report([board()])
    heads = [line for line in text.splitlines() if line.startswith("| ") and "model" in line]
    assert len(heads) == 5 and all("95 % ranks" in head for head in heads)
    assert re.search(r"\| +2≈ \| +1–2 \| ", text)
    assert "- 2 of 5 models are tied for first" in text
    assert text.count("≈ tied for first: no model is significantly better") == 4


def test_csv_and_json_have_columns_of_their_own():
    rows = list(csv.DictReader(io.StringIO(csv_report([board()], {}))))
    assert [(r["rank"], r["rank95_low"], r["rank95_high"], r["tied_with_leader"]) for r in rows[:3]] == [
        ("1", "1", "2", "True"),
        ("2", "1", "2", "True"),
        ("3", "3", "4", "False"),
    ]
    assert sum(float(row["p_best"]) for row in rows) == pytest.approx(1)
    found = json.loads(json_report([board()], {}, {}))
    assert [row["rank95"] for row in found["rows"]] == [[1, 2], [1, 2], [3, 4], [3, 4], [5, 5]]
    assert "lone_classes" not in found["dataset"] and "query_classes" not in found["dataset"]


def test_without_verdicts_there_are_no_ranks_and_a_reason():
    unsure = board(verdicts=None)
    text = terminal_report([unsure], width=200)
    assert text.count(f"no intervals of ranks: {LONG} has no verdicts") == 1
    assert "≈" not in text and all("ranks" not in rows[0] for rows in tables(text).values())
    assert f"- no intervals of ranks: {LONG} has no verdicts" in markdown_report([unsure])
    rows = list(csv.DictReader(io.StringIO(csv_report([unsure], {}))))
    assert rows[0]["rank95_low"] == rows[0]["p_best"] == rows[0]["tied_with_leader"] == ""
    assert json.loads(json_report([unsure], {}, {}))["rows"][0]["rank95"] is None


def test_with_few_classes_there_are_no_ranks_and_intervals():
    few = board(classes=np.repeat(np.arange(9), 4))
    for text in (terminal_report([few], width=200), markdown_report([few])):
        assert "≈" not in text and "ranks" not in text and "tied" not in text
