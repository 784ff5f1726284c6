"""One parametrized case for each model of the roster, and what it is expected to cost."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from embedcore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeGuard

    from _pytest.mark.structures import ParameterSet

    from embedcore.plugin.options import Options
    from embedcore.plugin.shards import Shard
    from embedcore.zoo.own_models import OwnModel

MODEL_ARGUMENT = "embed_model"
FAMILY_MARK = "embed_family"

# Fixtures without a value that our own fixtures ask for: a test has one of them only where it uses those, and not
# fixtures of its own by the same name.
OF_CASE = "_embed_of_case"
OF_SESSION = "_embed_of_session"
OF_REPLAY = "_embed_of_replay"


def model_parameters(options: Options) -> list[ParameterSet]:
    """A pytest parameter for each model: the tag, or the name of an own model, as value and id, its family as a marker.

    Raises UsageError for a roster or a family that does not exist.
    """
    from embedcore.interrupts import interrupts_held

    with interrupts_held():  # some of what torch and timm import swallows an exception, whatever it is
        from embedcore.zoo.roster import family_of_model, read_roster
        from embedcore.zoo.weights import check_policy

    roster = read_roster(options.roster, families=options.family, weights=check_policy(options.weights))
    for name in options.gallery:
        if name not in roster:
            import difflib

            close = difflib.get_close_matches(name, roster)
            hint = f"; close: {', '.join(close)}" if close else ""
            raise UsageError(f"--embed-gallery: {name!r} is none of the {len(roster)} models of this roster{hint}")
    return [
        pytest.param(
            model,
            id=model,
            marks=[
                pytest.mark.benchmark(group=family.title),
                getattr(pytest.mark, FAMILY_MARK)(family.slug, slug=family.slug),  # -m sees keywords only
            ],
        )
        for model, own in roster.items()
        for family in [family_of_model(model, own)]
    ]


def wants_models(metafunc: pytest.Metafunc) -> bool:
    """Whether a test takes `embed_model` from our fixture, and nobody else has given it values.

    The fixture of ours asks for `OF_CASE`; a fixture of the project's own by that name does not, and what a mark
    parametrizes needs no fixture.
    """
    given = (call.params for call in metafunc._calls)  # by another hook; pytest has no public way to ask
    return OF_CASE in metafunc.fixturenames and not any(MODEL_ARGUMENT in params for params in given)


def is_case(item: pytest.Item) -> TypeGuard[pytest.Function]:
    """Whether a test is one of our cases, with its model in ``item.callspec.params``."""
    return (
        isinstance(item, pytest.Function)
        and OF_CASE in item.fixturenames
        and MODEL_ARGUMENT in getattr(getattr(item, "callspec", None), "params", ())
    )


def needs_session(item: pytest.Item) -> bool:
    """Whether a test needs the images of the session or measures on it."""
    return OF_SESSION in getattr(item, "fixturenames", ())


def is_ours(item: pytest.Item) -> bool:
    """Whether a test has any of our fixtures."""
    return not {OF_CASE, OF_SESSION, OF_REPLAY}.isdisjoint(getattr(item, "fixturenames", ()))


def model_of(case: Any) -> str:
    """The model of one of our cases."""
    return str(case.callspec.params[MODEL_ARGUMENT])


@functools.cache
def case_gmacs(model: str, own: OwnModel | None = None) -> float | None:
    """GMACs of one image at the model's own input size, None for an architecture that is not in the table of sizes.

    The table holds those of the architecture's default tag; another tag's, or another size's, are scaled by the number
    of pixels. Of a factory they are not known; embeddings cost nothing.
    """
    from embedcore.zoo.registry import input_pixels, known_gmacs, split_tag

    if own is not None and own.arch is None:
        return 0.0 if own.embeddings else None
    tag = model if own is None else own.arch or ""
    known = known_gmacs(tag)
    pixels, default = input_pixels(tag), input_pixels(split_tag(tag)[0])
    if own is not None and own.size is not None:
        pixels = own.size[0] * own.size[1]
    return known if known is None or not pixels or not default else known * pixels / default


def replay_timer(items: list[pytest.Item]) -> None:
    """Have pytest-benchmark take the time of tests with ``embed_replay`` from what was measured."""
    from embedcore.plugin.replay import replayed_seconds

    for item in items:
        if OF_REPLAY in getattr(item, "fixturenames", ()):
            own = item.get_closest_marker("benchmark")
            settings = {**(own.kwargs if own else {}), "timer": replayed_seconds}
            item.add_marker(pytest.mark.benchmark(**settings), append=False)


def split_off(items: list[pytest.Item], shard: Shard, own: Mapping[str, OwnModel]) -> list[pytest.Item]:
    """Take the cases of other shards out of ``items``, in place, and give them; other tests stay in every shard."""
    from embedcore.plugin.shards import divide

    costs = {model: case_gmacs(model, own.get(model)) for model in map(model_of, filter(is_case, items))}
    ours = divide(costs, shard.parts)[shard.part - 1]
    others: list[pytest.Item] = [item for item in items if is_case(item) and model_of(item) not in ours]
    items[:] = [item for item in items if not is_case(item) or model_of(item) in ours]
    return others


def sort_by_cost(items: list[pytest.Item], own: Mapping[str, OwnModel]) -> None:
    """Put the cases among ``items`` in order of expected cost, in place; other tests stay where they are."""

    def cost(item: pytest.Item) -> float:
        gmacs = case_gmacs(model_of(item), own.get(model_of(item)))
        return float("inf") if gmacs is None else gmacs  # models of unknown cost come last

    places = [place for place, item in enumerate(items) if is_case(item)]
    if len(places) < 2:
        return
    cases = sorted((items[place] for place in places), key=cost)
    for place, item in zip(places, cases, strict=True):
        items[place] = item
