from __future__ import annotations

from rosters import resolve_roster

from embedcore.cli import main
from embedcore.zoo.families import FAMILIES
from embedcore.zoo.tags import all_tags


def test_every_family_is_listed_with_the_number_of_its_models(capsys):
    assert main(["families"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {slug: (int(count), title) for slug, count, title in (line.split(None, 2) for line in lines[:-2])}
    assert [*rows] == [family.slug for family in FAMILIES]
    assert rows["vit"] == (len(resolve_roster("all", families=["vit"])), "ViT")
    assert sum(count for count, _ in rows.values()) == len(all_tags())
    assert lines[-1].startswith(f"{len(all_tags())} models in ")
    assert all(len(line) <= 80 for line in lines)
