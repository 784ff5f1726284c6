"""Progress of a session on emulated terminals, and the text of the status line."""

from __future__ import annotations

import os
import pty
import re
import struct
import termios
from fcntl import ioctl
from itertools import pairwise
from multiprocessing.connection import wait

import forked
import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.plugin.progress import Position, result_words, stage_words, status_text
from embedcore.results.reading import read_run
from embedcore.results.result import Result

IN_PROCESS = "--embed-isolation=none"
MODELS = ("test_resnet.r160_in1k", "test_vit.r160_in1k", "test_efficientnet.r160_in1k")

# Shows the line at once and on every change; mini models would be too fast otherwise.
EAGER = """
import embedcore.plugin.progress as progress

progress.SHOWN_AFTER_S = progress.REDRAWN_S = 0.0
"""


class Terminal:
    """A session in a pseudo-terminal, with every state of its screen after the cursor was restored."""

    def __init__(self, arguments, columns, lines, folder):
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000)
        self.states = []
        stream = pyte.ByteStream(self.screen)
        ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        environment |= {"TERM": "xterm-256color", "PYTEST_ADDOPTS": ""}
        session = forked.start(
            forked.pytest_session, *arguments, folder=folder, output=os.ttyname(theirs), environment=environment
        )
        pending = b""
        while ours in wait([ours, session.sentinel]):
            *whole, pending = (pending + os.read(ours, 65536)).split(b"\x1b8")
            for part in whole:
                stream.feed(part + b"\x1b8")
                self.states.append([line.rstrip() for line in self.screen.display])
        stream.feed(pending)
        os.close(ours)
        os.close(theirs)
        self.code = forked.ended(session)

    @property
    def text(self):
        """The final text of the screen and its scrollback."""
        above = ["".join(row[column].data for column in range(self.screen.columns)) for row in self.screen.history.top]
        return [line.rstrip() for line in (*above, *self.screen.display)]


@pytest.fixture
def terminal(project):
    (project.path / "conftest.py").write_text(EAGER)

    def start(*arguments, columns=80, lines=24, roster="roster.txt"):
        everything = [
            *("test_models.py", "-p", "no:cacheprovider", "--embed-dataset=images", f"--embed-roster={roster}"),
            *("--embed-weights=random", f"--embed-cache={project.path / 'cache'}", "--embed-rounds=3"),
            *("--embed-processes=1", "--embed-order=roster", *arguments),
        ]
        return Terminal(everything, columns, lines, project.path)

    return start


def live_lines(terminal):
    """Every state of the status line."""
    found = {}
    for state in terminal.states:
        found |= dict.fromkeys(line for line in state if re.match(r"\[\d/\d\] |looking at the images", line))
    return list(found)


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (100, 12)])
def test_with_v_names_and_outcomes_stay_and_the_status_line_vanishes(terminal, columns, lines):
    seen = terminal("-v", columns=columns, lines=lines)
    assert seen.code == 0, seen.text
    for place, model in enumerate(MODELS, start=1):
        (row,) = (row for row in seen.text if row.startswith(f"test_models.py::test_model[{model}]"))
        assert re.fullmatch(rf".*\] PASSED +\[ *{100 * place // 3}%\]", row), row
        below = seen.text[seen.text.index(row) + 1]
        assert re.match(r"  acc [01]\.\d{3}, acc5 [01]\.\d{3}, [\d.]+!? images/s", below)
        assert len(below) < columns
    assert [row for row in seen.text if re.match(r"\[\d/\d\] ", row) or "timing round" in row] == []
    lived = "\n".join(live_lines(seen))
    for place, model in enumerate(MODELS, start=1):
        for stage in ("decoding", "loading", "warming up", "timing round 3/3", "embedding 9/9"):
            shown = [line for line in live_lines(seen) if line.startswith(f"[{place}/3] ") and stage in line]
            assert shown or (stage == "decoding" and place > 1), lived
            assert all(model in line or ".." in line for line in shown)
    assert all(len(line) < columns for line in live_lines(seen))
    # The test's row was complete above the status line in every state.
    for state in seen.states:
        for above, line in pairwise(state):
            if line.startswith("["):
                assert above.startswith("test_models.py::test_model[") and above.endswith("]"), state


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (100, 12)])
def test_without_v_the_dots_stay_on_one_line(terminal, columns, lines):
    seen = terminal(columns=columns, lines=lines)
    assert seen.code == 0, seen.text
    (row,) = (row for row in seen.text if row.startswith("test_models.py "))
    assert re.fullmatch(r"test_models\.py \.\.\. +\[100%\]", row), row
    assert [row for row in seen.text if re.match(r"\[\d/\d\] ", row)] == []
    dots = [above for state in seen.states for above, line in pairwise(state) if line[:1] == "["]
    assert set(dots) == {"test_models.py", "test_models.py .", "test_models.py .."}
    assert any(re.search(r", best [01]\.\d{3} test_", line) for line in live_lines(seen))


def test_quiet_shows_nothing(terminal):
    seen = terminal("-q", IN_PROCESS)
    assert seen.code == 0 and seen.states == []


@pytest.mark.parametrize("count", [0, 1])
def test_a_session_without_pytests_terminal_is_measured_in_silence(project, workers, count):
    project.makeconftest("from embedcore.plugin import plugin\nplugin.shared_cards = lambda *_: ['a note']")
    process = workers(count, "-p", "no:terminal", "--benchmark-json=run.json", IN_PROCESS)
    assert forked.ended(process) == 0, (project.path / "output").read_text()
    assert len(read_run(project.path / "run.json").results) == len(MODELS)


def test_output_of_a_test_that_is_not_captured_stays_whole(terminal, project):
    project.path.joinpath("test_models.py").write_text(
        "def test_model(embed_model, embed_images, embed_measure, embed_replay):\n"
        "    print('output before ', end='', flush=True)\n"
        "    result = embed_measure(embed_model, embed_images)\n"
        "    print('and after')\n"
        "    embed_replay(result)\n"
    )
    seen = terminal("-s", "-k", "test_vit", IN_PROCESS)
    assert [row for row in seen.text if "output before" in row] == ["test_models.py output before and after"], seen.text
    assert live_lines(seen)


@pytest.mark.parametrize(("columns", "lines", "verbose"), [(80, 24, True), (100, 12, False)])
def test_the_line_of_workers_vanishes_and_dots_and_names_stay(terminal, project, columns, lines, verbose):
    (project.path / "images" / "photo.cr2").write_bytes(b"")
    seen = terminal("-n2", IN_PROCESS, *(["-v"] if verbose else []), columns=columns, lines=lines)
    assert seen.code == 0, seen.text
    (note,) = (place for place, row in enumerate(seen.text) if row.startswith("embedcore: 1 .cr2 file not read"))
    lived = live_lines(seen)
    assert {line[:5] for line in lived} == {"[1/3]", "[2/3]"}, lived
    assert all(re.search(r": done, .* left, best [01]\.\d{3} test_", line) for line in lived), lived
    assert all(len(line) < columns for line in lived)
    assert [row for row in seen.text if re.match(r"\[\d/\d\] |.*: done,", row)] == []
    if verbose:
        for model in MODELS:
            (place,) = (p for p, row in enumerate(seen.text) if re.match(r"\[gw\d\] .*PASSED", row) and model in row)
            assert note < place and re.match(r"  acc [01]\.\d{3}, acc5 ", seen.text[place + 1])
    else:
        (dots,) = (place for place, row in enumerate(seen.text) if re.fullmatch(r"\.\.\. +\[100%\]", row))
        assert note < dots


def test_with_live_logs_there_is_no_status_line(terminal, project):
    project.path.joinpath("test_models.py").write_text(
        "import logging\n\n"
        "def test_model(embed_model, embed_images, embed_measure, embed_replay):\n"
        "    logging.warning('before')\n"
        "    result = embed_measure(embed_model, embed_images)\n"
        "    logging.warning('after')\n"
        "    embed_replay(result)\n"
    )
    seen = terminal("--log-cli-level=warning", IN_PROCESS)
    assert seen.code == 0 and live_lines(seen) == []
    logged = [row.split()[2] for row in seen.text if row.startswith("WARNING ")]
    assert logged == ["before", "after"] * len(MODELS), seen.text


# The words.


def result_of(model="vit_base_patch16_224.augreg_in21k", acc=0.5, **other):
    return Result.make(model, family="vit", status="ok", scores={"acc": acc, "acc5": 0.3}, **other)


@pytest.mark.parametrize(
    ("stage", "facts", "words"),
    [
        (("timing", 0, 10), {}, "warming up"),
        (("timing", 1, 10), {}, "timing round 2/10"),
        (("timing", 10, 10), {}, "timing round 10/10"),
        (("embedding", 0, 99), {}, "embedding 0/99"),
        (("decoding", 50, 99), {"rate": 270.4}, "decoding 50/99, 270 images/s"),
        (("", 50, 99), {}, "50/99"),
        (("loading", 0, 0), {"seconds": 0.4}, "loading"),
        (("loading", 0, 0), {"seconds": 75}, "loading, 1 min 15 s"),
    ],
)
def test_stages_in_words(stage, facts, words):
    assert stage_words(*stage, **facts) == words


def test_a_status_line_with_all_parts():
    position = Position("resnet50.a1_in1k", 3, 40, (700, 900), result_of())
    assert status_text(position, "timing round 3/10", 120) == (
        "[3/40] resnet50.a1_in1k: timing round 3/10, 12 to 15 min left, best 0.500 vit_base_patch16_224.augreg_in21k"
    )
    assert status_text(position, "timing round 3/10", 120, elapsed_s=850).count("0 to 50 s left") == 1
    assert status_text(position, "timing round 3/10", 99).endswith(", best 0.500 vit_base_pat..ugreg_in21k")
    assert status_text(position, "timing round 3/10", 70).endswith("12 to 15 min left")
    assert status_text(position, "timing round 3/10", 45) == "[3/40] resnet50.a1_in1k: timing round 3/10"
    assert status_text(Position("looking at the images"), "50/99", 79) == "looking at the images: 50/99"
    raced = Position("resnet50.a1_in1k", 3, 40, race=52)
    assert status_text(raced, "embedding 4/99", 79) == "race on 52 classes: [3/40] resnet50.a1_in1k: embedding 4/99"


@given(
    st.text("abc_.", min_size=1, max_size=60),
    st.integers(0, 2000),
    st.none() | st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)),
    st.none() | st.text("abc_", min_size=1, max_size=60),
    st.sampled_from(["loading", "timing round 3/10", "embedding 96/1164, 35 images/s"]),
    st.integers(20, 200),
)
def test_a_status_line_fits_its_width_and_always_shows_the_stage(model, place, left, leader, stage, width):
    position = Position(model, place, place + 1, left, None if leader is None else result_of(leader))
    line = status_text(position, stage, width)
    assert len(line) <= width
    assert stage in line or width < len(f"[{place}/{place + 1}] {stage}: ") + 16


def test_result_words():
    leader = result_of("resnet50.a1_in1k", 0.6, images_per_s={"forward": 50.0})
    result = result_of(images_per_s={"forward": 101.5}, crowded=0.3)
    output = "acc 0.500, acc5 0.300, 102! images/s (busy); best 0.600 resnet50.a1_in1k"
    assert result_words(result, leader) == output
    assert result_words(leader, leader) == "acc 0.600, acc5 0.300, 50.0 images/s; the best so far"
    long = result_of("vit_mediumd_patch16_reg4_gap_384.sbb2_e200_in12k_ft_in1k", 0.6)
    assert len(result_words(leader, long, 79)) == 79
    assert result_words(Result.make("a.b", family="vit", status="oom", reason="x"), None) == "oom"
