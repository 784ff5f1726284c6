"""``embedcore families``: the families of the leaderboards, for ``--embed-family``."""

from __future__ import annotations

import argparse
from collections import Counter


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "families",
        help="list the families: slug, title, number of models",
        description="List the families of the leaderboards: the slug for --embed-family, the number of models in the "
        "installed timm, and the title in tables.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from embedcore.zoo.families import FAMILIES, family_of
    from embedcore.zoo.registry import VERSION
    from embedcore.zoo.tags import all_tags

    counts = Counter(family_of(model).slug for model in all_tags())
    width = max(len(family.slug) for family in FAMILIES)
    for family in FAMILIES:
        print(f"{family.slug:<{width}}  {counts[family.slug]:>4}  {family.title}")
    print(f"\n{counts.total()} models in {len(counts)} families (timm {VERSION})")
    return 0
