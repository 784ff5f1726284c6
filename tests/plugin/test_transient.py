"""A temporary error fails one case, not the session."""

from __future__ import annotations

import pytest

# Simulates a fault of the machine for the images of one geometry, after the audit.
FAULT = """
import errno
from embedcore.images import retries, sources, workers

retries.PAUSES_S = (0, 0, 0)
readable, pixels = sources.ImageSource.content, workers.PixelReader.pixels
at_work = []

def failing(source, index):
    if at_work and at_work[-1] == "bilinear" and index == 4:
        raise {error}
    return readable(source, index)

def tracked(reader, index):
    at_work.append(reader.geometry.interpolation)
    try:
        return pixels(reader, index)
    finally:
        at_work.pop()

def pytest_configure():
    sources.ImageSource.content, workers.PixelReader.pixels = failing, tracked

def pytest_unconfigure():
    sources.ImageSource.content, workers.PixelReader.pixels = readable, pixels
    retries.PAUSES_S = (0.5, 2.0, 5.0)
"""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("OSError(errno.EIO, 'Input/output error')", "Input/output error"),
        ("OSError(errno.EMFILE, 'Too many open files')", "Too many open files"),
        ("MemoryError", "MemoryError"),
    ],
)
def test_an_image_that_cannot_be_read_now_fails_its_case_and_not_the_next(run, project, saved, error, message):
    project.makeconftest(FAULT.format(error=error))
    outcome = run("--embed-isolation=none", "--embed-order=roster", "--benchmark-json=run.json")
    outcome.assert_outcomes(passed=2, failed=1)
    (excluded,) = saved()["embedcore"]["excluded"]
    assert excluded["model"] == "test_resnet.r160_in1k" and excluded["status"] == "error"
    assert excluded["reason"].startswith("image 'class1/1.png' could not be read in 4 tries: " + message)


def test_a_damaged_image_ends_the_session_as_before(run, project):
    project.makeconftest(FAULT.format(error="sources.BadImageError('class1/1.png', 'damaged')"))
    outcome = run("--embed-isolation=none", "--embed-order=roster")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    assert "1 of 9 images cannot be read" in outcome.stdout.str() + outcome.stderr.str()
