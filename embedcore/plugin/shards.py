"""``--embed-shard I/N``: the part of the cases that this session runs."""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Mapping
from typing import NamedTuple


class Shard(NamedTuple):
    """Part ``part`` of ``parts``, counted from 1."""

    part: int
    parts: int

    def __str__(self) -> str:
        return f"{self.part}/{self.parts}"


def parse_shard(text: str) -> Shard:
    """Parse a shard such as ``2/8``. Raises ValueError."""
    numbers = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if numbers is None:
        raise ValueError("must be I/N, such as 2/8")
    shard = Shard(int(numbers[1]), int(numbers[2]))
    if not 1 <= shard.part <= shard.parts:
        raise ValueError("I of I/N must be from 1 to N")
    return shard


def divide(costs: Mapping[str, float | None], parts: int) -> list[frozenset[str]]:
    """Return the models of each shard, so that all shards cost about the same.

    The costliest model left goes to the shard with the lowest cost so far (Graham, SIAM J. Appl. Math. 17, 1969: at
    most 4/3 of the optimum). The result does not depend on the order of `costs`. Unknown costs count as the mean.

    >>> [sorted(shard) for shard in divide({"a": 3.0, "b": 2.0, "c": None, "d": 1.0}, 2)]
    [['a', 'd'], ['b', 'c']]
    """
    known = [cost for cost in costs.values() if cost is not None]
    mean = math.fsum(known) / len(known) if known else 1.0
    filled = {model: mean if cost is None else cost for model, cost in costs.items()}
    shards: list[set[str]] = [set() for _ in range(parts)]
    # Cost, then number of models so far, then place: the smallest is next.
    loads = [(0.0, 0, place) for place in range(parts)]
    for model in sorted(filled, key=lambda name: (-filled[name], name)):
        load, count, place = loads[0]
        shards[place].add(model)
        heapq.heapreplace(loads, (load + filled[model], count + 1, place))
    return [frozenset(shard) for shard in shards]
