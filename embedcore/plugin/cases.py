"""One parametrized case for each model of the roster, and its expected cost."""

from __future__ import annotations

import difflib
import functools
from typing import TYPE_CHECKING, Any

import pytest

from embedcore.errors import UsageError
from embedcore.interrupts import interrupts_held
from embedcore.plugin.replay import replayed_seconds
from embedcore.plugin.shards import Shard, divide

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeGuard

    from _pytest.mark.structures import ParameterSet

    from embedcore.plugin.options import Options
    from embedcore.zoo.own_models import OwnModel

MODEL_ARGUMENT = "embed_model"
FAMILY_MARK = "embed_family"

# Our fixtures request these fixtures, which have no value. A test that has one uses our fixtures, and not a project's
# fixtures with the same names.
OF_CASE = "_embed_of_case"
OF_SESSION = "_embed_of_session"
OF_REPLAY = "_embed_of_replay"


def model_parameters(options: Options) -> list[ParameterSet]:
    """Return a pytest parameter for each model: its tag or name as value and id, the family as a marker.

    Raises UsageError for a roster or family that does not exist.
    """
    with interrupts_held():  # some modules below torch and timm swallow exceptions at import
        from embedcore.zoo.roster import family_of_model, read_roster
        from embedcore.zoo.weights import check_policy

    roster = read_roster(options.roster, families=options.family, weights=check_policy(options.weights))
    for name in options.gallery:
        if name not in roster:
            close = difflib.get_close_matches(name, roster)
            hint = f" (did you mean {', '.join(close)}?)" if close else ""
            raise UsageError(f"--embed-gallery: {name!r} is not among the {len(roster)} models of this roster{hint}")
    return [
        pytest.param(
            model,
            id=model,
            marks=[
                pytest.mark.benchmark(group=family.title),
                getattr(pytest.mark, FAMILY_MARK)(family.slug, slug=family.slug),  # -m sees keywords only
            ],
        )
        for model, own_model in roster.items()
        for family in [family_of_model(model, own_model)]
    ]


def wants_models(metafunc: pytest.Metafunc) -> bool:
    """Whether a test uses our fixture `embed_model`, and no other hook has parametrized it.

    Our fixture requests `OF_CASE`; a project's own fixture of that name does not, and neither does a parametrize mark.
    """
    parametrized = (call.params for call in metafunc._calls)  # pytest has no public accessor
    return OF_CASE in metafunc.fixturenames and not any(MODEL_ARGUMENT in params for params in parametrized)


def is_case(item: pytest.Item) -> TypeGuard[pytest.Function]:
    """Whether a test is one of our cases, with its model in ``item.callspec.params``."""
    return (
        isinstance(item, pytest.Function)
        and OF_CASE in item.fixturenames
        and MODEL_ARGUMENT in getattr(getattr(item, "callspec", None), "params", ())
    )


def needs_session(item: pytest.Item) -> bool:
    """Whether a test uses the session's images or measures."""
    return OF_SESSION in getattr(item, "fixturenames", ())


def is_ours(item: pytest.Item) -> bool:
    """Whether a test uses any of our fixtures."""
    return not {OF_CASE, OF_SESSION, OF_REPLAY}.isdisjoint(getattr(item, "fixturenames", ()))


def model_of(case: Any) -> str:
    """Return the model of one of our cases."""
    return str(case.callspec.params[MODEL_ARGUMENT])


@functools.cache
def case_gmacs(model: str, own_model: OwnModel | None = None) -> float | None:
    """Return the GMACs of one image at the model's input size; None for a factory or an unknown architecture.

    They are those of the architecture's default tag, scaled by the number of pixels. Precomputed embeddings cost 0.
    """
    from embedcore.zoo.registry import input_pixels, known_gmacs, split_tag

    if own_model is not None and own_model.arch is None:
        return 0.0 if own_model.embeddings else None
    tag = model if own_model is None else own_model.arch or ""
    known = known_gmacs(tag)
    pixels, default = input_pixels(tag), input_pixels(split_tag(tag)[0])
    if own_model is not None and own_model.size is not None:
        pixels = own_model.size[0] * own_model.size[1]
    return known if known is None or not pixels or not default else known * pixels / default


def replay_timer(items: list[pytest.Item]) -> None:
    """Make pytest-benchmark use the measured durations in tests with ``embed_replay``."""
    for item in items:
        if OF_REPLAY in getattr(item, "fixturenames", ()):
            marker = item.get_closest_marker("benchmark")
            settings = {**(marker.kwargs if marker else {}), "timer": replayed_seconds}
            item.add_marker(pytest.mark.benchmark(**settings), append=False)


def split_off(items: list[pytest.Item], shard: Shard, own_models: Mapping[str, OwnModel]) -> list[pytest.Item]:
    """Remove the cases of other shards from ``items`` and return them; other tests stay in every shard."""
    costs = {model: case_gmacs(model, own_models.get(model)) for model in map(model_of, filter(is_case, items))}
    ours = divide(costs, shard.parts)[shard.part - 1]
    others: list[pytest.Item] = [item for item in items if is_case(item) and model_of(item) not in ours]
    items[:] = [item for item in items if not is_case(item) or model_of(item) in ours]
    return others


def sort_by_cost(items: list[pytest.Item], own_models: Mapping[str, OwnModel]) -> None:
    """Sort the cases among ``items`` by expected cost, in place; other tests keep their positions."""

    def cost(item: pytest.Item) -> float:
        gmacs = case_gmacs(model_of(item), own_models.get(model_of(item)))
        return float("inf") if gmacs is None else gmacs  # unknown costs last

    places = [place for place, item in enumerate(items) if is_case(item)]
    if len(places) < 2:
        return
    cases = sorted((items[place] for place in places), key=cost)
    for place, item in zip(places, cases, strict=True):
        items[place] = item
