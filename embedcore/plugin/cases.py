"""One parametrized case for each model of the roster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from embedcore.plugin.replay import replayed_seconds

if TYPE_CHECKING:
    from typing import TypeGuard

    from _pytest.mark.structures import ParameterSet

    from embedcore.plugin.options import Options

MODEL_ARGUMENT = "embed_model"
FAMILY_MARK = "embed_family"


def model_parameters(options: Options) -> list[ParameterSet]:
    """A pytest parameter for each model: the tag as value and id, its family as a marker, the replaying timer.

    Raises UsageError for a roster or a family that does not exist.
    """
    from embedcore.zoo.families import family_of
    from embedcore.zoo.roster import resolve_roster
    from embedcore.zoo.weights import check_policy

    return [
        pytest.param(
            model,
            id=model,
            marks=[
                pytest.mark.benchmark(group=family.title, timer=replayed_seconds),
                getattr(pytest.mark, FAMILY_MARK)(family.slug, slug=family.slug),  # -m sees keywords only
                # pytest-benchmark warns where a failed case has nothing to time: the failure says it already.
                pytest.mark.filterwarnings("ignore:Benchmark fixture was not used"),
            ],
        )
        for model in resolve_roster(options.roster, families=options.family, weights=check_policy(options.weights))
        for family in [family_of(model)]
    ]


def is_case(item: pytest.Item) -> TypeGuard[pytest.Function]:
    """Whether a test is one of our cases, with its model in ``item.callspec.params``."""
    return isinstance(item, pytest.Function) and hasattr(item, "callspec") and MODEL_ARGUMENT in item.callspec.params


def model_of(case: pytest.Function) -> str:
    """The model of one of our cases."""
    return str(case.callspec.params[MODEL_ARGUMENT])


def sort_by_cost(items: list[pytest.Item]) -> None:
    """Put the cases among ``items`` in order of expected cost, in place; other tests stay where they are."""
    cases = {model_of(item): item for item in items if is_case(item)}
    places = [place for place, item in enumerate(items) if is_case(item)]
    if len(places) < 2 or len(cases) < len(places):  # a test of the user's own that takes each model more than once
        return
    from embedcore.plugin.cost import cheapest_first

    for place, model in zip(places, cheapest_first(list(cases)), strict=True):
        items[place] = cases[model]
