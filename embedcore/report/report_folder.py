"""The report folder: the page of each dataset, leaderboard.md, .csv and .json, and the study's charts as SVG."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from embedcore.errors import UsageError
from embedcore.files import written_whole
from embedcore.report.board.captions import dataset_name
from embedcore.report.board.export import csv_report, json_report
from embedcore.report.board.markdown import markdown_report
from embedcore.results.leaderboard import Leaderboard

if TYPE_CHECKING:
    from embedcore.report.board.board_page import Unfinished
    from embedcore.report.gallery.gallery import Gallery
    from embedcore.report.html.chart import Chart
    from embedcore.report.html.drawing import Draw
    from embedcore.results.class_table import ClassTable

    Prepared: TypeAlias = tuple[list[dict[str, Any]], ClassTable | None, list[Chart]]


def write_report(
    directory: Path,
    boards: Sequence[Leaderboard],
    *,
    settings: Mapping[str, Any] | None = None,
    machine: Mapping[str, Any] | None = None,
    when: str | None = None,
    unfinished: Unfinished | None = None,
    galleries: Sequence[Gallery | None] = (),
    asked: Collection[str] = (),
    draw: Draw | None = None,
) -> list[Path]:
    """Write leaderboard.md, .csv and .json, index.html and charts/ into `directory`.

    `boards`: one for each dataset, at least one; `galleries`: one for each board, or None; `asked`: models whose
    examples they show. `machine`: ``machine_info.embedcore`` of the saved JSON; `when`: its ``datetime``;
    `unfinished`: the progress of a run that is not finished; `draw`: of a `drawing_process` begun earlier. Each file is
    written as a whole, the pages last. Returns the paths. Raises UsageError if the folder cannot be made or written,
    DrawingFailed if charts cannot be drawn.
    """
    from embedcore.report.gallery.gallery import gallery_data
    from embedcore.report.html.drawing import drawing_process, start_scripts

    settings, machine = settings or {}, machine or {}
    _write(directory, {})
    start_scripts()
    retrieved = [
        None if gallery is None else gallery_data(board, gallery, asked)
        for board, gallery in zip(boards, galleries or [None] * len(boards), strict=True)
    ]
    with drawing_process() if draw is None else contextlib.nullcontext(draw) as draw:
        prepared = _prepared(boards)
        drawn = draw(
            {
                f"charts/{'' if place == 1 else f'dataset-{place}/'}{chart.name}.svg": chart.standalone
                for place, (*_, charts) in enumerate(prepared, 1)
                for chart in charts
                if chart.has_file
            }
        )
        texts = {
            "leaderboard.md": markdown_report(boards, settings=settings, machine=machine, when=when),
            "leaderboard.csv": csv_report(boards, machine, when),
            "leaderboard.json": json_report(boards, settings, machine, when),
        }
        # The tables are written first: they are there also if drawing fails.
        paths = _write(directory, {name: text.encode() for name, text in texts.items()})
        made = pages(
            boards,
            settings=settings,
            machine=machine,
            when=when,
            beside=tuple(texts),
            unfinished=unfinished,
            galleries=retrieved,
            prepared=prepared,
        )
        return [*paths, *_write(directory, drawn.result() | made)]


def _write(directory: Path, contents: Mapping[str, bytes]) -> list[Path]:
    try:
        put(directory, contents)
    except OSError as error:
        raise UsageError(
            f"report folder {directory} cannot be written: {error.strerror or error}; choose another folder"
        ) from error
    return [directory / name for name in contents]


def put(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write files in their order, each as a whole or not at all. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        for below in reversed(Path(name).parents[:-1]):
            if (directory / below).is_symlink():
                (directory / below).unlink()  # it may point anywhere
            (directory / below).mkdir(exist_ok=True)
        with written_whole(directory / name) as file:
            file.write(content)


def pages(
    boards: Sequence[Leaderboard],
    *,
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
    when: str | None = None,
    beside: Sequence[str] = (),
    unfinished: Unfinished | None = None,
    galleries: Sequence[Mapping[str, Any] | None] = (),
    prepared: Sequence[Prepared] | None = None,
) -> dict[str, bytes]:
    """Return the page of each dataset by its name, index.html last.

    `beside`: files that the page links to; `galleries`: the `gallery_data` of each board; `prepared`: its rows, class
    table and charts, if they are known.
    """
    from embedcore.report.board.board_page import index_page
    from embedcore.report.html.drawing import start_scripts

    start_scripts()
    names = [f"dataset-{number}.html" if number > 1 else "index.html" for number in range(1, len(boards) + 1)]
    titles = {name: dataset_name(board.dataset) for name, board in zip(names, boards, strict=True)}
    made = {
        name: index_page(
            board,
            *of_page,
            settings=settings,
            machine=machine,
            when=when,
            beside=beside,
            pages=titles if len(boards) > 1 else {},
            here=name,
            unfinished=unfinished,
            retrieved=retrieved,
        ).encode()
        for name, board, of_page, retrieved in zip(
            names, boards, prepared or _prepared(boards), galleries or [None] * len(boards), strict=True
        )
    }
    return dict(reversed(made.items()))


def _prepared(boards: Iterable[Leaderboard]) -> list[Prepared]:
    from embedcore.report.board.charts import charts
    from embedcore.report.board.rows import rows
    from embedcore.results.class_table import class_table

    found: list[Prepared] = []
    for board in boards:
        table = None if board.unlabelled else class_table((row.result for row in board.by_acc), board.dataset)
        of_page = rows(board)
        found.append((of_page, table, charts(board, of_page, table)))
    return found
