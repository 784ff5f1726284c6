from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.results.leaderboard import Leaderboard, build, group_excluded, rank
from embedcore.results.result import STATUSES, Result

Make = Callable[..., Result]

TITLES = {"vit": "ViT", "resnet": "resnet", "other": "other"}


def _measured(model: str, family: str, acc: float, acc5: float) -> Result:
    return Result.make(model, family=family, status="ok", scores={"acc": acc, "acc5": acc5})


# Few distinct values and names, so that ties of every kind are common.
_SCORE = st.sampled_from([0.0, 0.1, 0.25, 1.0])
_MEASURED = st.builds(_measured, st.sampled_from("abcdef"), st.sampled_from([*TITLES, "new"]), _SCORE, _SCORE)
_EXCLUDED = st.builds(
    lambda model, family, status, reason: Result.make(model, family=family, status=status, reason=reason),
    st.sampled_from("abcdef"),
    st.sampled_from([*TITLES]),
    st.sampled_from([status for status in STATUSES if status != "ok"]),
    st.sampled_from(["", "out of memory", "no weights for a", "no weights for b"]),
)
_RESULTS = st.lists(_MEASURED | _EXCLUDED, max_size=60)


def _ids(results: list[Result]) -> Counter[int]:
    return Counter(id(result) for result in results)


@given(_RESULTS)
def test_every_result_is_in_one_family_or_excluded(results: list[Result]) -> None:
    board = build(results, dataset={}, titles=TITLES)
    in_groups = [row.result for group in board.groups for row in group.rows]
    assert _ids(in_groups + list(board.excluded_results)) == _ids(results)
    assert _ids([row.result for row in board.by_acc]) == _ids(in_groups)
    assert _ids([row.result for row in board.by_acc5]) == _ids(in_groups)
    assert all(row.result.family == group.slug for group in board.groups for row in group.rows)
    assert all(group.rows for group in board.groups)
    for group in board.groups:
        assert tuple(row for _, rows in group.parts for row in rows) == group.rows


@given(_RESULTS)
def test_order_and_ranks(results: list[Result]) -> None:
    board = build(results, dataset={}, titles=TITLES)
    rankings = [(board.by_acc, "acc", "acc5"), (board.by_acc5, "acc5", "acc")]
    rankings += [(group.rows, "acc", "acc5") for group in board.groups]
    for rows, metric, then in rankings:
        pairs = [(row.result.scores[metric], row.result.scores[then]) for row in rows]
        assert pairs == sorted(pairs, reverse=True)
        for row, pair in zip(rows, pairs, strict=True):
            assert row.rank == 1 + sum(other > pair for other in pairs)  # competition ranking, by its definition
        for one, two in itertools.pairwise(rows):
            assert one.rank < two.rank or one.result.model <= two.result.model


@given(_RESULTS, st.randoms(use_true_random=False))
def test_the_order_of_the_results_does_not_matter(results: list[Result], random: object) -> None:
    distinct = list({result.model: result for result in results}.values())
    shuffled = list(distinct)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert _shape(build(distinct, dataset={})) == _shape(build(shuffled, dataset={}))


def _shape(board: Leaderboard) -> tuple[object, ...]:
    excluded = {(e.status, frozenset(r.model for r in e.results)) for e in board.excluded}
    return board.groups, board.by_acc, board.by_acc5, excluded


@given(_RESULTS)
def test_leaders_are_the_first_of_each_family_by_overall_rank(results: list[Result]) -> None:
    board = build(results, dataset={}, titles=TITLES)
    assert sorted(row.result.family for row in board.leaders) == sorted(group.slug for group in board.groups)
    assert [row.rank for row in board.leaders] == sorted(row.rank for row in board.leaders)
    groups = {group.slug: group for group in board.groups}
    for row in board.leaders:
        others = groups[row.result.family].rows
        assert row.result is others[0].result
        assert row.rank == board.ranks[id(row.result)][0] == min(board.ranks[id(other.result)][0] for other in others)


@given(_RESULTS)
def test_ranks_of_each_result_are_those_of_the_three_rankings(results: list[Result]) -> None:
    board = build(results, dataset={}, titles=TITLES)
    assert set(board.ranks) == {id(row.result) for row in board.by_acc}
    for place, rows in enumerate((board.by_acc, board.by_acc5, [row for group in board.groups for row in group.rows])):
        assert all(board.ranks[id(row.result)][place] == row.rank for row in rows)


def test_families_come_in_the_order_given_and_unknown_ones_after_them() -> None:
    results = [_measured(slug, slug, 0.5, 0.5) for slug in ("zebra", "other", "apple", "vit")]
    board = build(results, dataset={}, titles=TITLES)
    assert [(group.slug, group.title) for group in board.groups] == [
        ("vit", "ViT"),
        ("other", "other"),
        ("apple", "apple"),
        ("zebra", "zebra"),
    ]


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1]), (40, [40]), (41, [30, 11]), (100, [30, 70])])
def test_a_family_of_more_than_40_is_cut_in_two(rows: int, sizes: list[int]) -> None:
    board = build([_measured(f"m{i}", "vit", i / 100, 0) for i in range(rows)], dataset={})
    parts = board.groups[0].parts
    assert [len(part) for _, part in parts] == sizes
    assert [heading for heading, _ in parts] == ([""] if len(sizes) == 1 else ["best 30", "the rest"])


def test_ties_share_a_rank_and_the_next_rank_is_skipped() -> None:
    results = [_measured("b", "vit", 0.5, 0.2), _measured("a", "vit", 0.5, 0.2), _measured("c", "vit", 0.5, 0.1)]
    rows = rank([*results, _measured("d", "vit", 0.9, 0.0)], "acc", "acc5")
    assert [(row.rank, row.result.model) for row in rows] == [(1, "d"), (2, "a"), (2, "b"), (4, "c")]


def test_many_cases_of_one_reason_are_one_exclusion() -> None:
    no_weights = [
        Result.make(f"m{i}.x", family="vit", status="no-weights", reason=f"m{i}.x: hub unreachable")
        for i in range(1822)
    ]
    single = Result.make("n.x", family="vit", status="no-weights", reason="no file for n.x")
    crash = Result.make("o.x", family="vit", status="crashed", reason="killed by SIGKILL")
    exclusions = group_excluded([crash, single, *no_weights])
    assert [(e.status, e.reason, len(e.results)) for e in exclusions] == [
        ("no-weights", "<model>: hub unreachable", 1822),
        ("no-weights", "no file for n.x", 1),
        ("crashed", "killed by SIGKILL", 1),
    ]
    assert exclusions[0].results[0].model == "m0.x"


def test_no_measured_results() -> None:
    board = build([], dataset={"name": "emoji"})
    assert (board.groups, board.by_acc, board.leaders, board.excluded_results) == ((), (), (), ())
    assert board.dataset == {"name": "emoji"}
