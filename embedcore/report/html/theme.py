"""How families look, in tables and charts, in dark and light: a colour and a shape that no other family has."""

from __future__ import annotations

from typing import NamedTuple

from embedcore.zoo.families import FAMILIES, OTHER

# Paul Tol's "vibrant" scheme, made for every kind of sight (https://sronpersonalpages.nl/~pault/), with a plum for its
# grey, which stands out from white too little.
COLOURS = ("#0077bb", "#ee7733", "#009988", "#cc3311", "#33bbee", "#ee3377", "#883377")
# SVG paths in a square from -1 to 1, as Vega and the page both draw them.
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


class Look(NamedTuple):
    """A colour of `COLOURS` and a shape of `SHAPES`."""

    colour: str
    shape: str


def _looks() -> dict[str, Look]:
    """By place in the table of families, so that reports of any two runs agree; neighbours differ in both."""
    places = ((number % len(COLOURS), number // len(COLOURS)) for number in range(len(FAMILIES)))
    return {
        family.slug: Look(COLOURS[colour], SHAPES[(colour + row) % len(SHAPES)])
        for family, (colour, row) in zip(FAMILIES, places, strict=True)
    }


_LOOKS = _looks()


def look_of(slug: str) -> Look:
    """The look of a family; that of "other" for one that the table does not have."""
    return _LOOKS.get(slug, _LOOKS[OTHER.slug])
