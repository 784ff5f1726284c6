"""Accuracy of each class, against a loop over the queries."""

from __future__ import annotations

from dataclasses import replace

import browsing
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.results.class_table import FEW, ClassTable, class_table
from embedcore.results.verdicts import unpack_classes, unpack_verdicts

RUN = browsing.a_run(6, classes=30)
LABELS = unpack_classes(RUN.dataset["query_classes"])


def test_each_class_equals_a_loop() -> None:
    table = class_table(RUN.results, RUN.dataset)
    assert table is not None and table.references is not None
    for result in RUN.results:
        hits, first = unpack_verdicts(result.verdicts or "")
        for place, name in enumerate(table.names):
            number = int(name.removeprefix("class "))
            mine = [query for query, label in enumerate(LABELS) if label == number]
            assert table.queries[place] == len(mine)
            assert table.acc(result.model)[place] == pytest.approx(np.mean([first[query] for query in mine]))
            assert table.acc5(result.model)[place] == pytest.approx(np.mean([hits[query] / 5 for query in mine]))
            assert table.references[place] == RUN.dataset["class_references"][number]


def test_the_best_and_the_worst_classes_are_never_the_same() -> None:
    table = class_table(RUN.results, RUN.dataset)
    assert table is not None
    acc = table.acc(RUN.results[0].model)
    best, worst = table.extremes(RUN.results[0].model)
    assert len(best) == len(worst) == 5 and not set(best) & set(worst)
    assert acc[best].min() >= np.delete(acc, best).max()
    assert acc[worst].max() <= np.delete(acc, worst).min()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=40))
def test_the_best_and_the_worst_classes_come_first_in_a_sort_of_all(rows: list[tuple[int, int, int]]) -> None:
    first, queries, hits = np.array(rows).T
    first = np.minimum(first, queries)
    table = ClassTable(tuple(map(str, queries)), queries, None, {"net": 0}, first[None], hits[None])
    acc, acc5, count = first / queries, hits / (5 * queries), min(5, len(rows) // 2)
    best = sorted(range(len(rows)), key=lambda c: (-acc[c], -acc5[c], -queries[c], c))[:count]
    worst = sorted(range(len(rows)), key=lambda c: (acc[c], acc5[c], -queries[c], c))[:count]
    assert table.extremes("net") == (best, worst)


def test_few_references_effect_equals_a_loop() -> None:
    table = class_table(RUN.results, RUN.dataset)
    assert table is not None
    model = RUN.results[2].model
    few = [q for q, label in enumerate(LABELS) if RUN.dataset["class_references"][label] < FEW]
    many = [q for q in range(len(LABELS)) if q not in few]
    firsts = {result.model: unpack_verdicts(result.verdicts or "").first for result in RUN.results}
    wanted = [
        value
        for queries in (few, many)
        for value in (firsts[model][queries].mean(), np.mean([first[queries].mean() for first in firsts.values()]))
    ]
    assert table.few_references_effect(model) == pytest.approx(wanted)
    assert replace(table, references=None).few_references_effect(model) is None
    assert replace(table, references=np.full(len(table.names), 9)).few_references_effect(model) is None


def test_classes_without_a_reference_are_left_out() -> None:
    table = class_table(RUN.results, {**RUN.dataset, "lone_classes": [0, 7]})
    assert table is not None
    assert "class 7" not in table.names and len(table.names) == 28


@pytest.mark.parametrize(
    "dataset",
    [{}, {"query_classes": "nonsense"}, {"query_classes": 3}, {**RUN.dataset, "lone_classes": list(range(30))}],
)
def test_without_classes_there_is_no_table(dataset: dict[str, object]) -> None:
    assert class_table(RUN.results, dataset) is None


def test_unreadable_verdicts_count_as_missing() -> None:
    import msgspec

    broken = [msgspec.structs.replace(RUN.results[0], verdicts=text) for text in ("nonsense", None, "eJwDAAAAAAE=")]
    assert class_table(broken, RUN.dataset) is None
    table = class_table([*broken, RUN.results[1]], {**RUN.dataset, "class_references": "x", "class_names": ["a"]})
    assert table is not None and set(table.models) == {RUN.results[1].model}
    assert table.references is None and table.names[:2] == ("a", "class 1")
