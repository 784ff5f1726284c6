"""The report folder: pages and charts for people, leaderboard.md, .csv for spreadsheets, .json for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embedcore.errors import UsageError
from embedcore.files import written_whole
from embedcore.plain import json_safe
from embedcore.report.board.captions import dataset_name
from embedcore.report.board.markdown import markdown_report
from embedcore.report.gallery.albums import Album, Shown, shown
from embedcore.results.leaderboard import Leaderboard, build
from embedcore.results.result import Result
from embedcore.results.run import embedcore_block

if TYPE_CHECKING:
    from embedcore.report.board.board_page import Unfinished

# What a spreadsheet would take for the beginning of a formula; with East Asian settings the wide forms too.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")

# Kept in the saved run only: thousands of characters that no reader of a leaderboard can use.
_NOT_IN_ROWS = ("detail", "verdicts", "sketch", "durations")
_NOT_IN_DATASET = ("query_classes", "lone_classes", "class_names", "class_references")

MANY = 200
"""Models; of more the charts of single families are drawn in the page alone."""

_RANKS = ("rank", "rank_acc5", "rank_in_family")
_STANDING = ("rank95", "p_best", "tied_with_leader")
"""Overall, by acc; None where the verdicts do not tell."""
_MACHINE = ("processor", "gpu", "timm", "torch")
_ALWAYS = {"weights": ("source", "id"), "images_per_s": ("forward", "end_to_end")}
"""Columns of these fields that the CSV has whether or not a result has them."""


def write_report(
    directory: Path,
    boards: Sequence[Leaderboard],
    *,
    settings: Mapping[str, Any] | None = None,
    machine: Mapping[str, Any] | None = None,
    when: str | None = None,
    all_pictures: bool = False,
    unfinished: Unfinished | None = None,
    albums: Sequence[Album | None] = (),
    asked: Collection[str] = (),
) -> list[Path]:
    """Write leaderboard.md, .csv and .json, index.html and charts/ into `directory`, which is made if it is missing;
    also neighbours.npz where there are `albums` (one a dataset, or None), in which `asked` are models to be shown too.

    `boards`: one a dataset, at least one. `machine`: ``machine_info.embedcore`` of the saved JSON; `when`: its
    ``datetime``; `all_pictures`: see `pages_begun`; `unfinished`: of a run that is not finished. Each file is whole
    or not there; index.html, which links the others, comes last. Returns the paths.
    Raises UsageError if the folder cannot be made or written, DrawingFailed if charts cannot be drawn.
    """
    settings, machine = settings or {}, machine or {}
    names = ("leaderboard.md", "leaderboard.csv", "leaderboard.json")
    _write(directory, {})
    # Drawing goes on elsewhere meanwhile; should it fail, the tables are written all the same.
    galleries = [
        None if album is None else shown(board, album, asked)
        for board, album in zip(boards, albums or [None] * len(boards), strict=True)
    ]
    pages = pages_begun(
        boards,
        settings=settings,
        machine=machine,
        when=when,
        beside=names,
        all_pictures=all_pictures,
        unfinished=unfinished,
        galleries=galleries,
    )
    texts = (
        markdown_report(boards, settings=settings, machine=machine, when=when),
        csv_report(boards, machine, when),
        json_report(boards, settings, machine, when),
    )
    kept = {f"neighbours{place if place > 1 else ''}.npz": made for place, made in enumerate(galleries, start=1)}
    tables = {name: made.file for name, made in kept.items() if made}
    tables |= {name: text.encode() for name, text in zip(names, texts, strict=True)}
    return [*_write(directory, tables), *_write(directory, pages())]


def _write(directory: Path, contents: Mapping[str, bytes]) -> list[Path]:
    try:
        put(directory, contents)
    except OSError as error:
        raise UsageError(
            f"report folder {directory} cannot be written: {error.strerror or error}; name one that can"
        ) from error
    return [directory / name for name in contents]


def put(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write files, each whole or not at all, in their order. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        for below in reversed(Path(name).parents[:-1]):
            if (directory / below).is_symlink():
                (directory / below).unlink()  # it may lead anywhere
            (directory / below).mkdir(exist_ok=True)
        with written_whole(directory / name) as file:
            file.write(content)


def pages_begun(
    boards: Sequence[Leaderboard],
    *,
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
    when: str | None = None,
    beside: Sequence[str] = (),
    pictures: bool = True,
    all_pictures: bool = False,
    unfinished: Unfinished | None = None,
    galleries: Sequence[Shown | None] = (),
) -> Callable[[], dict[str, bytes]]:
    """Begin to make the page of each dataset and, with `pictures`, its charts as files; the function waits for them:
    address to content, the pages last.

    `beside`: files that are linked; `galleries`: one a dataset. Of more than `MANY` models the charts of single
    families are left out unless `all_pictures`, since they would take longer than all else; the page draws them, and
    gives them as files.
    """
    from embedcore.report.board.board_page import index_page
    from embedcore.report.board.charts import charts
    from embedcore.report.board.rows import rows
    from embedcore.report.html.drawing import rendering_begun, scripts_begun
    from embedcore.results.class_table import class_table

    scripts_begun()
    addresses = [f"dataset-{number}.html" if number > 1 else "index.html" for number in range(1, len(boards) + 1)]
    folders = ["charts", *(f"charts/{address.removesuffix('.html')}" for address in addresses[1:])]
    several = {address: dataset_name(board.dataset) for address, board in zip(addresses, boards, strict=True)}
    tabled = [rows(board) for board in boards]
    tables = [class_table((row.result for row in board.by_acc), board.dataset) for board in boards]
    drawn = [charts(*of_one) for of_one in zip(boards, tabled, tables, strict=True)]
    files = {
        (place, chart.name): chart
        for place, of_one in enumerate(drawn)
        for chart in of_one
        if pictures and (all_pictures or not chart.of_family or len(tabled[place]) <= MANY)
    }
    kinds: tuple[Literal["svg", "png"], ...] = ("svg", "png")
    rendering = rendering_begun([chart.whole for chart in files.values()], kinds) if files else list

    def wait() -> dict[str, bytes]:
        pages = {}
        for place, (board, address) in enumerate(zip(boards, addresses, strict=True)):
            names = {name: f"{folders[place]}/{name}" for number, name in files if number == place}
            pages[address] = index_page(
                board,
                tabled[place],
                tables[place],
                drawn[place],
                settings=settings,
                machine=machine,
                when=when,
                beside=beside,
                pages=several if len(boards) > 1 else {},
                here=address,
                files={name: [f"{stem}.{kind}" for kind in kinds] for name, stem in names.items()},
                unfinished=unfinished,
                retrieved=galleries[place] if galleries else None,
            ).encode()
        contents = {
            f"{folders[place]}/{name}.{kind}": content
            for (place, name), of_one in zip(files, rendering(), strict=True)
            for kind, content in zip(kinds, of_one, strict=True)
        }
        return contents | dict(reversed(pages.items()))

    return wait


def csv_report(boards: Sequence[Leaderboard], machine: Mapping[str, Any], when: str | None = None) -> str:
    """One row a result, overall best first, then those not measured: ranks, fields, each score with low and high."""
    common = {key: machine.get(key) for key in _MACHINE} | {"datetime": when}
    rows = [row for board in boards for row in _rows(board)]
    # A result with nothing in it has all columns, also where there is no row.
    nothing = build([Result.make("-", family="-", status="error", reason="-")], dataset={})
    cells = [_cells(row, common) for row in (*_rows(nothing), *rows)]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(guarded, columns))
    writer.writerows([guarded(row.get(name)) for name in columns] for row in cells[1:])
    return out.getvalue()


def guarded(cell: object) -> object:
    """`cell`, with an apostrophe before text that a spreadsheet would run as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def json_report(
    boards: Sequence[Leaderboard], settings: Mapping[str, Any], machine: Mapping[str, Any], when: str | None = None
) -> str:
    """``schema``, ``settings``, ``machine``, ``datetime``, ``dataset``, ``rows`` (overall best first, with their ranks)
    and ``excluded``. ``dataset`` is the first one; where there are more, ``datasets`` has all."""
    datasets = [{key: value for key, value in b.dataset.items() if key not in _NOT_IN_DATASET} for b in boards]
    block = embedcore_block(settings=settings, datasets=datasets, excluded=())
    block |= {"machine": machine, "datetime": when}
    block["rows"] = [row for board in boards for row in _rows(board) if row["status"] == "ok"]
    block["excluded"] = [
        result.excluded_info() | {"dataset": dataset_name(board.dataset)}
        for board in boards
        for result in board.excluded_results
    ]
    return json.dumps(json_safe(block), indent=1, allow_nan=False) + "\n"


def _rows(board: Leaderboard) -> Iterator[dict[str, Any]]:
    """Ranks and fields of each result, measured or not."""
    ranks = board.ranks
    standings = {id(row.result): row.standing for row in board.by_acc}
    for result in (*(row.result for row in board.by_acc), *board.excluded_results):
        standing = standings.get(id(result))
        fields = {name: value for name, value in result.to_json().items() if name not in _NOT_IN_ROWS}
        if result.ok:
            fields.pop("reason", None)
        places = ranks.get(id(result), (None, None, None))
        sure = {name: getattr(standing, name, None) for name in _STANDING}
        yield dict(zip(_RANKS, places, strict=True)) | sure | fields | {"dataset": dataset_name(board.dataset)}


def _cells(row: Mapping[str, Any], common: Mapping[str, object]) -> dict[str, object]:
    """A row of the CSV: without anything inside of another; with what is `common` to all."""
    cells: dict[str, object] = {}
    for name, value in row.items():
        if name == "input_size":
            cells |= dict(zip(("input_height", "input_width"), value[1:] if value else (None, None), strict=True))
        elif name == "rank95":
            cells |= dict(zip(("rank95_low", "rank95_high"), value or (None, None), strict=True))
        elif isinstance(value, Mapping) and name not in ("scores", "ci95"):
            cells |= {f"{name}_{key}": value.get(key) for key in dict.fromkeys((*_ALWAYS.get(name, ()), *value))}
        elif not isinstance(value, Mapping):
            cells[name] = value
    cells |= common
    for metric, value in row["scores"].items():
        low, high = row["ci95"].get(metric, (None, None))
        cells |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
    return cells
