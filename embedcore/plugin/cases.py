"""One parametrized case for each model of the roster, and what it is expected to cost."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from embedcore.plugin.replay import replayed_seconds

if TYPE_CHECKING:
    from typing import TypeGuard

    from _pytest.mark.structures import ParameterSet

    from embedcore.plugin.options import Options
    from embedcore.plugin.shards import Shard

MODEL_ARGUMENT = "embed_model"
FAMILY_MARK = "embed_family"


def model_parameters(options: Options) -> list[ParameterSet]:
    """A pytest parameter for each model: the tag as value and id, its family as a marker.

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
                pytest.mark.benchmark(group=family.title),
                getattr(pytest.mark, FAMILY_MARK)(family.slug, slug=family.slug),  # -m sees keywords only
            ],
        )
        for model in resolve_roster(options.roster, families=options.family, weights=check_policy(options.weights))
        for family in [family_of(model)]
    ]


def is_case(item: pytest.Item) -> TypeGuard[pytest.Function]:
    """Whether a test is one of our cases, with its model in ``item.callspec.params``."""
    return isinstance(item, pytest.Function) and hasattr(item, "callspec") and MODEL_ARGUMENT in item.callspec.params


def model_of(case: Any) -> str:
    """The model of one of our cases."""
    return str(case.callspec.params[MODEL_ARGUMENT])


@functools.cache
def case_gmacs(model: str) -> float | None:
    """GMACs of one image at the tag's own input size, None for an architecture that is not in the table of sizes.

    The table holds those of the architecture's default tag; another tag's are scaled by the number of pixels.
    """
    from embedcore.zoo.registry import input_pixels, known_gmacs, split_tag

    known = known_gmacs(model)
    own, default = input_pixels(model), input_pixels(split_tag(model)[0])
    return known if known is None or not own or not default else known * own / default


def replay_timer(items: list[pytest.Item]) -> None:
    """Have pytest-benchmark take the time of tests with ``embed_replay`` from what was measured."""
    for item in items:
        if "embed_replay" in getattr(item, "fixturenames", ()):
            own = item.get_closest_marker("benchmark")
            settings = {**(own.kwargs if own else {}), "timer": replayed_seconds}
            item.add_marker(pytest.mark.benchmark(**settings), append=False)


def split_off(items: list[pytest.Item], shard: Shard) -> list[pytest.Item]:
    """Take the cases of other shards out of ``items``, in place, and give them; other tests stay in every shard."""
    from embedcore.plugin.shards import divide

    costs = {model: case_gmacs(model) for model in map(model_of, filter(is_case, items))}
    own = divide(costs, shard.parts)[shard.part - 1]
    others: list[pytest.Item] = [item for item in items if is_case(item) and model_of(item) not in own]
    items[:] = [item for item in items if not is_case(item) or model_of(item) in own]
    return others


def sort_by_cost(items: list[pytest.Item]) -> None:
    """Put the cases among ``items`` in order of expected cost, in place; other tests stay where they are."""
    places = [place for place, item in enumerate(items) if is_case(item)]
    if len(places) < 2:
        return
    # Models of unknown cost come last.
    cases = sorted((items[place] for place in places), key=lambda item: case_gmacs(model_of(item)) or float("inf"))
    for place, item in zip(places, cases, strict=True):
        items[place] = item
