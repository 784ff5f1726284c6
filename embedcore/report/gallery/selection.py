"""The queries that a page shows, with each model's five nearest references. Pure.

A query is right if its nearest reference has its class, as in `acc`.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedcore.images.ceilings import reference_counts
from embedcore.plain import counted, one_line
from embedcore.report.gallery.paired import PairedComparison, paired_comparisons
from embedcore.results.class_table import verdicts_of
from embedcore.results.leaderboard import Leaderboard
from embedcore.results.neighbours import KeptNeighbours

MOST = 24
"""Maximum number of queries or pairs of classes in a part."""
_EXAMPLES = 12
"""Maximum number of right queries of one model, and of wrong ones."""
MOST_PICTURES = 2000
MOST_BYTES = 20_000_000
"""Limit of all pictures, in bytes as encoded in the page."""


@dataclass(frozen=True)
class Labels:
    """The n images of a dataset."""

    names: Sequence[str]
    """[n]"""
    classes: Sequence[str]
    class_of: NDArray[np.int64]
    """[n], indices of `classes`."""
    queries: NDArray[np.int64]
    """[n_queries], places among the images."""
    references: NDArray[np.int64]
    """[n_references]; with leave-one-out all images."""

    def fits(self, found: KeptNeighbours) -> bool:
        """Whether the neighbours can be those of these images."""
        rows, columns = found.indices.shape
        return rows == len(self.queries) and columns > 0 and int(found.indices.max()) < len(self.references)


@dataclass(frozen=True)
class Part:
    """Queries under one heading. `kind`: ``list`` (answers of `model`), ``wrong`` (likewise; no model is right),
    ``pairs`` (of classes), ``model`` or ``two`` (one or two models that the reader chooses)."""

    title: str
    note: str
    kind: str
    queries: tuple[int, ...]
    model: str = ""
    pairs: tuple[tuple[int, int, int, int, str], ...] = ()
    """For each query two classes, how often they were confused, the number of answers, and a model that confused them
    for this query."""


@dataclass(frozen=True)
class Selection:
    """The parts of a gallery that a page shows."""

    labels: Labels
    found: Mapping[str, KeptNeighbours]
    """Of the shown models, best first."""
    parts: tuple[Part, ...]
    examples: Mapping[str, tuple[int, ...]]
    """Further queries of models that were asked for."""
    paired: tuple[PairedComparison, ...] = ()
    """Each pair of the best models that are shown."""

    @property
    def queries(self) -> tuple[int, ...]:
        """All shown queries, most important first."""
        groups = (*(part.queries for part in self.parts), *self.examples.values())
        return tuple(dict.fromkeys(query for queries in groups for query in queries))

    def images(self) -> list[int]:
        """Return the shown images, most important first: queries, the leader's answers, the others' answers."""
        queries = list(self.queries)
        shown = dict.fromkeys(self.labels.queries[queries].tolist())
        for found in self.found.values():
            shown |= dict.fromkeys(self.labels.references[found.indices[queries].ravel()].tolist())
        return list(shown)


def select(
    board: Leaderboard, labels: Labels, found: Mapping[str, KeptNeighbours], asked: Collection[str] = ()
) -> Selection | None:
    """Select what to show of the models in `found`, without those that do not fit `labels`; None if none is left.
    `asked`: models that get examples of their own, as the leader does."""
    models = [row.result.model for row in board.by_acc]
    shown = {model: found[model] for model in models if model in found and labels.fits(found[model])}
    verdicts = {row.result.model: verdicts_of(row.result, len(labels.queries)) for row in board.by_acc}
    right = {model: bits[1] for model, bits in verdicts.items() if bits is not None}
    shown = {model: each for model, each in shown.items() if model in right}
    if not shown:
        return None
    leader = next(iter(shown))
    of_query = labels.class_of[labels.queries]
    alone = np.array_equal(labels.queries, labels.references)
    scored = reference_counts(of_query, None if alone else labels.class_of[labels.references]) > 0
    nearest = {model: labels.class_of[labels.references[each.indices[:, 0]]] for model, each in shown.items()}
    similarity = {model: each.similarities[:, 0].astype(np.float64) for model, each in shown.items()}
    counts = np.sum(list(right.values()), axis=0)
    parts = [
        _all_wrong(
            np.flatnonzero(scored & (counts == 0)), nearest, similarity[leader], int(scored.sum()), len(right), leader
        )
    ]
    if len(right) > 1:
        only = np.flatnonzero(scored & right[leader] & (counts == 1))
        note = f"{_queries(len(only))}; {len(right):,} models were measured. The highest similarities come first."
        if leader != models[0]:
            note += f" The neighbours of the best model, {models[0]}, are not available."
        parts.append(Part(f"Only {leader} gets these right", note, "list", _best(only, similarity[leader]), leader))
    parts.append(_confused(of_query, nearest, scored, len(labels.classes)))
    examples = {
        model: (
            *_spread(np.flatnonzero(scored & right[model]), similarity[model]),
            *_spread(np.flatnonzero(scored & ~right[model]), similarity[model]),
        )
        for model in shown
        if model == leader or model in asked
    }
    note = "Right and wrong queries, from the highest to the lowest similarity of the nearest reference."
    parts.append(Part("One model, right and wrong", note, "model", examples.pop(leader), leader))
    if len(shown) > 1:
        among = np.sum([right[model] for model in shown], axis=0)
        split = np.minimum(among, len(shown) - among)
        divided = np.flatnonzero(scored & (split > 0))
        note = "The same queries by both models; those on which they differ come first."
        parts.append(Part("Two models side by side", note, "two", _best(divided, split.astype(np.float64)), leader))
    paired = paired_comparisons({model: right[model][scored] for model in shown}, of_query[scored])
    return Selection(labels, shown, tuple(part for part in parts if part.queries), examples, tuple(paired))


def _queries(number: int) -> str:
    return counted(number, "query", "queries")


def _best(among: NDArray[np.int64], by: NDArray[np.float64]) -> tuple[int, ...]:
    """Return at most `MOST` of these queries, the highest values first."""
    return tuple(among[np.argsort(-by[among], kind="stable")][:MOST].tolist())


def _spread(among: NDArray[np.int64], by: NDArray[np.float64]) -> tuple[int, ...]:
    """Return at most `_EXAMPLES` of these queries, from the highest to the lowest value at equal steps of rank."""
    ordered = among[np.argsort(-by[among], kind="stable")]
    steps = np.linspace(0, len(ordered) - 1, min(_EXAMPLES, len(ordered))).round().astype(np.int64)
    return tuple(ordered[steps].tolist())


def _all_wrong(
    among: NDArray[np.int64],
    nearest: Mapping[str, NDArray[np.int64]],
    similarity: NDArray[np.float64],
    scored: int,
    measured: int,
    leader: str,
) -> Part:
    """Queries that no model gets right, those first for which most models agree on one wrong class."""
    answers = np.stack([classes[among] for classes in nearest.values()])
    agreed = np.array([np.unique(column, return_counts=True)[1].max() for column in answers.T], dtype=np.float64)
    order = np.lexsort((among, -similarity[among], -agreed)) if len(among) else np.zeros(0, np.int64)
    several = measured > 1
    title = "Every model gets these wrong" if several else f"{leader} gets these wrong"
    note = f"{_queries(len(among))} of {scored:,}. Often the label is wrong, or the image shows both classes."
    if several:
        note += " Queries for which most models agree on one wrong class come first."
    return Part(title, note, "wrong", tuple(among[order][:MOST].tolist()), leader)


def _confused(
    of_query: NDArray[np.int64], nearest: Mapping[str, NDArray[np.int64]], scored: NDArray[np.bool_], classes: int
) -> Part:
    codes = {}
    for model, answers in nearest.items():
        low, high = np.minimum(of_query, answers), np.maximum(of_query, answers)
        codes[model] = np.where(scored & (low != high), low * classes + high, -1)
    every = np.concatenate(list(codes.values()))
    pairs, counts = np.unique(every[every >= 0], return_counts=True)
    order = np.lexsort((pairs, -counts))[:MOST]
    sizes = np.bincount(of_query[scored], minlength=classes)
    queries, entries = [], []
    for code, count in zip(pairs[order].tolist(), counts[order].tolist(), strict=True):
        model = next(model for model in codes if (codes[model] == code).any())
        queries.append(int(np.flatnonzero(codes[model] == code)[0]))
        low, high = divmod(code, classes)
        entries.append((low, high, count, len(nearest) * int(sizes[low] + sizes[high]), model))
    whose = "the shown model" if len(nearest) == 1 else f"the {len(nearest)} models shown here"
    note = f"The pairs of classes that {whose} confused most often, each with an example."
    return Part("Confused classes", note, "pairs", tuple(queries), "", tuple(entries))


def limited(pictures: Iterable[tuple[int, bytes]]) -> dict[int, bytes]:
    """Return the first pictures, up to `MOST_PICTURES` and `MOST_BYTES`."""
    taken: dict[int, bytes] = {}
    left = MOST_BYTES
    for place, picture in pictures:
        left -= 4 * len(picture) // 3 + 40
        if left < 0 or len(taken) >= MOST_PICTURES:
            break
        taken[place] = picture
    return taken


def page_data(shown: Selection, pictures: Mapping[int, bytes]) -> dict[str, Any]:
    """Return the data of the page: ``images`` [name, class, picture or None], ``answers`` of each model to each of
    ``queries`` [[image, similarity], …], the parts, whose queries are places in ``queries``, and paired comparisons."""
    labels, queries = shown.labels, list(shown.queries)
    images = {image: number for number, image in enumerate(shown.images())}
    used = sorted(
        {int(labels.class_of[image]) for image in images}
        | {c for part in shown.parts for p in part.pairs for c in p[:2]}
    )
    classes = {number: place for place, number in enumerate(used)}
    place = {query: number for number, query in enumerate(queries)}
    answers = {
        model: [
            [[images[int(labels.references[index])], round(float(similarity), 3)] for index, similarity in row]
            for row in (zip(found.indices[q].tolist(), found.similarities[q].tolist(), strict=True) for q in queries)
        ]
        for model, found in shown.found.items()
    }
    return {
        "classes": [one_line(labels.classes[number]) for number in used],
        "images": [
            [one_line(labels.names[image]), classes[int(labels.class_of[image])], _address(pictures.get(image))]
            for image in images
        ],
        "queries": [images[int(labels.queries[query])] for query in queries],
        "answers": answers,
        "parts": [
            {
                "title": part.title,
                "note": part.note,
                "kind": part.kind,
                "model": part.model,
                "queries": [place[query] for query in part.queries],
                "pairs": [[classes[a], classes[b], count, of, model] for a, b, count, of, model in part.pairs],
            }
            for part in shown.parts
        ],
        "examples": {model: [place[query] for query in queries] for model, queries in shown.examples.items()},
        "paired": [list(pair) for pair in shown.paired],
        "missing": sum(image not in pictures for image in images),
    }


class Hardest(NamedTuple):
    """The strip of queries that no model gets right. `pictures`: address, class and name of a query, and the class of
    its nearest reference."""

    title: str
    note: str
    pictures: list[tuple[str, str, str, str]]


def hardest(data: Mapping[str, Any], most: int = 8) -> Hardest | None:
    """Return the strip from `page_data`, None if there is no such query with a picture."""
    part = next((part for part in data["parts"] if part["kind"] == "wrong"), None)
    if part is None:
        return None
    pictures = []
    for query in part["queries"]:
        name, of, address = data["images"][data["queries"][query]]
        answer = data["images"][data["answers"][part["model"]][query][0][0]][1]
        if address:
            pictures.append((address, data["classes"][of], name, data["classes"][answer]))
    return Hardest(part["title"], part["note"], pictures[:most]) if pictures else None


def _address(picture: bytes | None) -> str | None:
    return None if picture is None else f"data:image/webp;base64,{base64.b64encode(picture).decode()}"
