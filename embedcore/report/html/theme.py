"""The theme of each family in tables and charts: a colour and a shape that no other family has."""

from __future__ import annotations

from typing import NamedTuple

from embedcore.zoo.families import FAMILIES, OTHER

# Paul Tol's colour-blind safe "vibrant" scheme (https://sronpersonalpages.nl/~pault/), with plum for its grey, whose
# contrast to white is too low.
COLOURS = ("#0077bb", "#ee7733", "#009988", "#cc3311", "#33bbee", "#ee3377", "#883377")
# SVG paths in a square from -1 to 1; Vega and the page draw the same ones.
SHAPES = (
    "M-0.95,0A0.95,0.95,0,1,1,0.95,0A0.95,0.95,0,1,1,-0.95,0Z",
    "M-0.82,-0.82H0.82V0.82H-0.82Z",
    "M0,-0.95L1,0.8H-1Z",
    "M0,-1L0.9,0L0,1L-0.9,0Z",
    "M-0.35,-1H0.35V-0.35H1V0.35H0.35V1H-0.35V0.35H-1V-0.35H-0.35Z",
    "M0,0.95L-1,-0.8H1Z",
    "M0.95,0L-0.8,1V-1Z",
    "M-0.95,0L0.8,-1V1Z",
    "M0,-1L0.29,-0.4L0.95,-0.31L0.48,0.15L0.59,0.81L0,0.5L-0.59,0.81L-0.48,0.15L-0.95,-0.31L-0.29,-0.4Z",
)


class Theme(NamedTuple):
    """A colour of `COLOURS` and a shape of `SHAPES`."""

    colour: str
    shape: str


def _themes() -> dict[str, Theme]:
    """Return a theme for each family by its place in the table, so that reports agree. Neighbours differ in both."""
    places = ((number % len(COLOURS), number // len(COLOURS)) for number in range(len(FAMILIES)))
    return {
        family.slug: Theme(COLOURS[colour], SHAPES[(colour + row) % len(SHAPES)])
        for family, (colour, row) in zip(FAMILIES, places, strict=True)
    }


_THEMES = _themes()


def theme_of(slug: str) -> Theme:
    """Return the theme of a family; that of "other" for an unknown one."""
    return _THEMES.get(slug, _THEMES[OTHER.slug])
