"""Made-up runs whose neighbours are known, and the galleries of pages."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import synthetic_runs as made
from PIL import Image

from embedcore.report.gallery.gallery import Gallery
from embedcore.report.gallery.selection import Labels
from embedcore.results.neighbours import KeptNeighbours
from embedcore.results.run import Run
from embedcore.retrieval.metrics import score

FINGERPRINT = "f00d"
MODELS = ("vit_tiny.in1k", "vit_small.in1k", "resnet18.a1_in1k", "swin_tiny.in1k")


def a_run(
    models: Sequence[str] = MODELS, *, classes: Sequence[str] = (), lone: bool = False, seed: int = 3
) -> tuple[Run, Labels, dict[str, KeptNeighbours]]:
    """Models that embed 60 queries and 40 references of 10 classes with more or less noise; `lone`: the first class has
    no reference."""
    rng = np.random.default_rng(seed)
    names = tuple(classes) or tuple(f"class {number}" for number in range(10))
    of_query, of_reference = np.repeat(np.arange(10), 6), np.repeat(np.arange(10), 4)
    if lone:
        of_reference[of_reference == 0] = 1
    labels = Labels(
        [*(f"query/{n}.png" for n in range(60)), *(f"reference/{n}.png" for n in range(40))],
        names,
        np.concatenate([of_query, of_reference]),
        np.arange(60),
        np.arange(60, 100),
    )
    centres = rng.standard_normal((10, 8))
    common = 0.9 * rng.standard_normal((100, 8))
    infos: list[dict[str, Any]] = []
    found: dict[str, KeptNeighbours] = {}
    for place, model in enumerate(models):
        rows = centres[labels.class_of] + common + (0.3 + 0.3 * place) * rng.standard_normal((100, 8))
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        scores = score(rows[:60], of_query, rows[60:], of_reference, resamples=10)
        info = made.result(model, of_query, scores.hits5)
        infos.append(info | {"verdicts": made.pack_verdicts(scores.hits5, scores.rank1), "scores": scores.values})
        found[model] = KeptNeighbours.make(scores.neighbours.indices, scores.neighbours.similarities)
    dataset = {
        "class_names": list(names),
        "references": 40,
        "lone_classes": [0] if lone else [],
        "credits": ["Photos by somebody, CC BY 4.0"],
    }
    return made.as_run(made.saved(infos, of_query, dataset=dataset)), labels, found


def a_gallery(labels: Labels, found: dict[str, KeptNeighbours]) -> Gallery:
    """A gallery with a plain picture of each image but the last."""

    def pictures(places: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        for place in places:
            if place != len(labels.names) - 1:
                out = io.BytesIO()
                shade = tuple(int(x) for x in np.random.default_rng(place).integers(0, 256, 3))
                Image.new("RGB", (24, 18), shade).save(out, "WEBP")
                yield place, out.getvalue()

    return Gallery(labels, found, pictures)


def retrieved(page: Path) -> dict[str, Any]:
    """The gallery's data in a page."""
    text = page.read_text(encoding="utf-8").partition('id="retrieved">')[2].partition("</script>")[0]
    data: dict[str, Any] = json.loads(text)
    return data
