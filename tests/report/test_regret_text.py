"""The sentences of `embedcore regret` and of the page, on runs with and without published accuracies."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import synthetic_runs as made

from embedcore.compare.regret import Regrets, regrets, rules_of
from embedcore.report.board.findings import Named, Sentence
from embedcore.report.regret_text import as_json, as_text, card, cost_sentence
from embedcore.results.class_table import class_table
from embedcore.results.leaderboard import boards_of
from embedcore.results.run import Run
from embedcore.zoo.published import published

LABELS = np.repeat(np.arange(40), 5)
TAGS = sorted(published()["ImageNet"])[::150][:8]
SIZES = [2.0, 5.0, 8.0, 15.0, 20.0, 25.0, 50.0, 300.0]


def a_run(models: list[str], labels: np.ndarray = LABELS, **changes: Any) -> Run:
    """A run of models of growing size and falling acc."""
    infos = [
        made.result(model, labels, made.hits_of(model, labels, 0.8 - 0.06 * n), params_m=SIZES[n], **changes)
        for n, model in enumerate(models)
    ]
    return made.as_run(made.saved(infos, labels))


def found_in(run: Run) -> Regrets:
    table = class_table(run.results, run.dataset)
    assert table is not None
    return regrets(run.results, table, rules_of(run.results, published()))


def card_of(run: Run) -> tuple[Sentence, ...]:
    (board,) = boards_of(run, {})
    return card(board, class_table(run.results, run.dataset))


def words(parts: Sentence) -> str:
    return "".join(part.model if isinstance(part, Named) else part for part in parts)


def test_the_text_fits_80_columns_and_says_what_each_rule_costs() -> None:
    run = a_run(TAGS)
    found = found_in(run)
    text = as_text(found, run.dataset, 80)
    assert max(map(len, text.splitlines())) <= 80
    joined = " ".join(text.split())
    size = found.of("size")
    assert size is not None and size.picked == (TAGS[-1],) and size.points > 0.2
    cost = f"{100 * size.points:.1f} ({100 * size.low:.1f} to {100 * size.high:.1f})"
    assert f"; by size {cost}" in joined
    assert joined.count("Had you picked by published ImageNet top-1, you would lose") == 1
    assert re.search(rf"(^| )(\S+, )*size picks? {re.escape(TAGS[-1])} \(acc {size.acc:.3f}\)\.", joined)
    assert f"best by acc: {found.best} ({found.best_acc:.3f})" in joined
    assert "Published accuracies: timm " in joined
    header = next(line for line in text.splitlines() if line.startswith("rule"))
    assert header.split() == ["rule", "models", "loss", "95", "%", "tau", "<10M", "10–30"]


def test_a_table_with_all_bands_of_size_fits_80_columns() -> None:
    models = [model for model in published()["ImageNet-Sketch"] if model in published()["ReaL"]][:12]
    params = [4.0, 5.0, 6.0, 15.0, 20.0, 25.0, 50.0, 60.0, 70.0, 200.0, 300.0, 400.0]
    infos = [
        made.result(model, LABELS, made.hits_of(model, LABELS, 0.9 - 0.06 * n), params_m=params[n])
        for n, model in enumerate(models)
    ]
    run = made.as_run(made.saved(infos, LABELS))
    lines = as_text(found_in(run), run.dataset, 80).splitlines()
    header = next(line for line in lines if line.startswith("rule"))
    assert header.split()[-4:] == ["<10M", "10–30", "30–100", ">100M"]
    assert max(map(len, lines)) <= 80 and any(line.startswith("ImageNet-Sketch ") for line in lines)


def test_few_classes_have_no_intervals_and_no_card() -> None:
    few = np.repeat(np.arange(5), 20)
    run = a_run(TAGS, few)
    assert "95 %" not in as_text(found_in(run), run.dataset, 80)
    assert card_of(run) == ()


def test_the_card_states_cost_pick_agreement_and_departure() -> None:
    run = a_run(TAGS)
    first, second, third, fourth = map(words, card_of(run))
    table = class_table(run.results, run.dataset)
    assert table is not None
    shown = [rule for rule in rules_of(run.results, published()) if rule.name in ("ImageNet", "size")]
    assert first == cost_sentence(regrets(run.results, table, shown).rules, True)
    assert re.match(r"Published ImageNet top-1 orders 8 of 8 models and picks \S+ \(acc 0\.\d{3}\)", second)
    assert third.startswith("Kendall's tau of this order and acc is ") and "(1: same order)" in third
    assert re.fullmatch(r"\S+ departs most from it: rank \d there, \d by acc\.", fourth)


def test_without_published_accuracies_the_card_is_about_size() -> None:
    run = a_run([f"m{n}.x" for n in range(8)])
    first, second, *_ = map(words, card_of(run))
    assert first.startswith("Had you picked by size, you would lose ") and second.startswith(
        "Size orders 8 of 8 models"
    )
    assert card_of(a_run(["m0.x", "m1.x"])) == ()
    assert card_of(a_run([f"m{n}.x" for n in range(8)], verdicts=None)) == ()


def test_a_rule_that_picks_the_best_says_so() -> None:
    run = made.as_run(
        made.saved(
            [
                made.result(f"m{n}.x", LABELS, made.hits_of(f"m{n}.x", LABELS, 0.2 * n), params_m=float(n))
                for n in range(1, 5)
            ],
            LABELS,
        )
    )
    first, second, *rest = map(words, card_of(run))
    assert "you would lose 0.0 points of acc (0.0 to 0.0)" in first
    assert second == f"Size orders 4 of 4 models and picks m4.x (acc {found_in(run).best_acc:.3f}), the best."
    assert rest == ["Kendall's tau of this order and acc is 1.00 (1: same order)."]


def test_a_model_that_a_rule_cannot_order_is_named() -> None:
    run = a_run(["best.x", *TAGS[:5]])
    joined = " ".join(as_text(found_in(run), run.dataset, 80).split())
    assert re.search(r"The best model, best\.x, is not ordered by ImageNet\b", joined)


def test_json_has_the_numbers() -> None:
    run = a_run(TAGS)
    found = found_in(run)
    data = as_json(found, run.dataset)
    assert (data["dataset"], data["models"], data["classes"], data["best"]) == ("photos", 8, 40, found.best)
    for row, regret in zip(data["rules"], found.rules, strict=True):
        assert (row["rule"], row["loss"], row["loss_ci95"]) == (
            regret.rule.name, regret.points, [regret.low, regret.high]
        )  # fmt: skip
        assert [band["title"] for band in row["bands"]] == ["<10M", "10–30", "30–100", ">100M"]
    assert data["rules"][0]["departures"][0].keys() == {"model", "value", "rank", "acc", "rank_by_acc"}
