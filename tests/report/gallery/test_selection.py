from __future__ import annotations

from collections import Counter

import galleries
import pytest

from embedcore.report.gallery.selection import MOST, hardest, limited, page_data, select
from embedcore.results.leaderboard import boards_of


@pytest.fixture(scope="module")
def made():
    run, labels, found = galleries.a_run()
    return run, labels, found, boards_of(run, {})[0]


def right_of(labels, found):
    """Brute force: model → whether each query's nearest is of its class."""
    return {
        model: [
            labels.class_of[labels.references[row[0]]] == labels.class_of[query]
            for row, query in zip(each.indices, labels.queries, strict=True)
        ]
        for model, each in found.items()
    }


def part(shown, word):
    return next(part for part in shown.parts if word in part.title)


def test_the_parts_contain_the_queries_of_their_titles(made):
    _, labels, found, board = made
    shown = select(board, labels, found)
    right = right_of(labels, found)
    leader, *others = [row.result.model for row in board.by_acc]
    n = len(labels.queries)
    unsolved = {q for q in range(n) if not any(bits[q] for bits in right.values())}
    only = {q for q in range(n) if right[leader][q] and not any(right[m][q] for m in others)}
    assert set(part(shown, "Every model").queries) == unsolved and unsolved
    assert f"{len(unsolved)} queries of {n}" in part(shown, "Every model").note
    assert set(part(shown, "Only").queries) == only and only
    one = part(shown, "One model").queries
    assert {right[leader][q] for q in one} == {True, False}
    two = part(shown, "Two models").queries
    assert two and all(0 < sum(bits[q] for bits in right.values()) < len(right) for q in two)
    assert all(len(each.queries) <= MOST for each in shown.parts)


def test_the_most_confused_pairs_are_counted_over_all_shown_models(made):
    _, labels, found, board = made
    pairs = part(select(board, labels, found), "Confused")
    counts: Counter[tuple[int, int]] = Counter()
    for each in found.values():
        for row, query in zip(each.indices, labels.queries, strict=True):
            a, b = sorted((int(labels.class_of[query]), int(labels.class_of[labels.references[row[0]]])))
            if a != b:
                counts[a, b] += 1
    expected = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST]
    assert [((a, b), count) for a, b, count, _, _ in pairs.pairs] == expected
    for (a, b, _, _, model), query in zip(pairs.pairs, pairs.queries, strict=True):
        answer = labels.class_of[labels.references[found[model].indices[query, 0]]]
        assert {int(answer), int(labels.class_of[labels.queries[query]])} == {a, b}


def test_queries_with_a_common_wrong_class_come_first(made):
    _, labels, found, board = made
    queries = part(select(board, labels, found), "Every model").queries

    def agreed(query):
        return max(
            Counter(int(labels.class_of[labels.references[each.indices[query, 0]]]) for each in found.values()).values()
        )

    assert [agreed(q) for q in queries] == sorted((agreed(q) for q in queries), reverse=True)


def test_the_selection_is_deterministic_in_any_order_of_models(made):
    _, labels, found, board = made
    again = dict(reversed(list(found.items())))
    assert page_data(select(board, labels, found), {}) == page_data(select(board, labels, again), {})


def test_a_requested_model_has_its_own_examples(made):
    _, labels, found, board = made
    last = board.by_acc[-1].result.model
    shown = select(board, labels, found, {last})
    right = right_of(labels, found)[last]
    assert {right[q] for q in shown.examples[last]} == {True, False}
    assert set(shown.examples[last]) <= set(shown.queries)


def test_one_model_alone_and_models_that_do_not_fit(made):
    _, labels, found, board = made
    second = board.by_acc[1].result.model
    shown = select(board, labels, {second: found[second]})
    assert [part.kind for part in shown.parts] == ["wrong", "list", "pairs", "model"]
    assert "are not available" in shown.parts[1].note or shown.parts[1].queries == ()
    few = type(found[second])(found[second].indices[1:], found[second].similarities[1:])
    beyond = type(found[second])(found[second].indices + 10_000, found[second].similarities)
    assert select(board, labels, {second: few}) is None
    assert select(board, labels, {second: beyond}) is None
    assert select(board, labels, {}) is None


def test_page_data_are_the_neighbours_with_their_classes(made):
    _, labels, found, board = made
    shown = select(board, labels, found)
    data = page_data(shown, {shown.images()[0]: b"x"})
    for model, each in found.items():
        for place, query in enumerate(shown.queries):
            names = [data["images"][number][0] for number, _ in data["answers"][model][place]]
            assert names == [labels.names[labels.references[index]] for index in each.indices[query]]
            own = data["images"][data["queries"][place]]
            assert data["classes"][own[1]] == labels.classes[labels.class_of[labels.queries[query]]]
    assert data["images"][0][2] == "data:image/webp;base64,eA=="
    assert data["missing"] == len(data["images"]) - 1


def test_pictures_are_bounded(monkeypatch):
    monkeypatch.setattr("embedcore.report.gallery.selection.MOST_BYTES", 4000)
    assert list(limited((n, bytes(600)) for n in range(100))) == [0, 1, 2, 3]
    monkeypatch.setattr("embedcore.report.gallery.selection.MOST_PICTURES", 2)
    assert list(limited((n, b"") for n in range(100))) == [0, 1]


def test_queries_without_a_reference_of_their_class_are_in_no_part():
    run, labels, found = galleries.a_run(lone=True)
    shown = select(boards_of(run, {})[0], labels, found)
    classes = labels.class_of[labels.queries]
    lone = {q for q in range(len(classes)) if classes[q] not in set(labels.class_of[labels.references].tolist())}
    assert lone and not lone & set(shown.queries)


def test_the_strip_has_the_queries_that_no_model_gets_right(made):
    _, labels, found, board = made
    shown = select(board, labels, found)
    queries = part(shown, "Every model").queries
    pictures = dict.fromkeys(shown.images(), b"x")
    strip = hardest(page_data(shown, pictures), most=3)
    assert strip.title == "Every model gets these wrong" and len(strip.pictures) == 3
    for query, (address, of, name, answer) in zip(queries, strip.pictures, strict=False):
        assert address == "data:image/webp;base64,eA==" and name == labels.names[labels.queries[query]]
        assert of == labels.classes[labels.class_of[labels.queries[query]]] != answer
    assert hardest(page_data(shown, {})) is None


def test_the_best_two_are_compared(made):
    _, labels, found, board = made
    shown = select(board, labels, found)
    right = right_of(labels, found)
    one, two = (right[row.result.model] for row in board.by_acc[:2])
    first, second, alone, other, *_ = page_data(shown, {})["paired"][0]
    assert (first, second) == (0, 1)
    assert (alone, other) == (
        sum(a > b for a, b in zip(one, two, strict=True)),
        sum(a < b for a, b in zip(one, two, strict=True)),
    )
