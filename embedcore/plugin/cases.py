"""One parametrized case for each model of the roster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from embedcore.plugin.replay import replayed_seconds

if TYPE_CHECKING:
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

    return [
        pytest.param(
            model,
            id=model,
            marks=[
                pytest.mark.benchmark(group=family.title, timer=replayed_seconds),
                getattr(pytest.mark, FAMILY_MARK)(family.slug),
                # pytest-benchmark warns where a failed case has nothing to time: the failure says it already.
                pytest.mark.filterwarnings("ignore:Benchmark fixture was not used"),
            ],
        )
        for model in resolve_roster(options.roster, families=options.family)
        for family in [family_of(model)]
    ]
