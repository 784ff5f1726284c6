"""The measurements of a comparison: what is kept is not measured again."""

from __future__ import annotations

import pytest

from embedcore.ab.measurements import Measurements
from embedcore.ab.noise import Noise, store_noise, stored_noise
from embedcore.errors import UsageError
from embedcore.results.result import Result

RESULT = Result.make("a.b", family="f", status="ok", scores={"acc": 0.5, "acc5": 0.5}, durations=(1.0, 2.0))
KEY = ("a.b", "A", "{}", 0)


def test_kept_measurements_are_loaded(tmp_path):
    with Measurements(tmp_path, {"a": 1}) as measurements:
        measurements.add(KEY, RESULT)
    with Measurements(tmp_path, {"a": 1}) as measurements:
        assert measurements.results == {KEY: RESULT}
    with Measurements(tmp_path, {"a": 2}) as measurements:
        assert not measurements.results
    with Measurements(tmp_path, {"a": 1}, fresh=True) as measurements:
        assert not measurements.results


def test_damaged_files_are_measured_again(tmp_path):
    with Measurements(tmp_path, {}) as measurements:
        for number in range(3):
            measurements.add((*KEY[:3], number), RESULT)
    kept, changed, cut = sorted(measurements.folder.iterdir())
    changed.write_bytes(changed.read_bytes().replace(b"a.b", b"a.c", 1))
    cut.write_bytes(cut.read_bytes()[:-20])
    for _ in range(2):
        with Measurements(tmp_path, {}) as measurements:
            assert len(measurements.results) == 1
            assert list(measurements.folder.iterdir()) == [kept]


def test_a_finished_comparison_starts_from_the_beginning(tmp_path):
    with Measurements(tmp_path, {}) as measurements:
        measurements.add(KEY, RESULT)
        measurements.finish()
    with Measurements(tmp_path, {}) as measurements:
        assert not measurements.results


def test_two_processes_cannot_make_the_same_comparison(tmp_path):
    with Measurements(tmp_path, {}), pytest.raises(UsageError, match="in use by another process"):
        Measurements(tmp_path, {})
    with Measurements(tmp_path, {}):
        pass


def test_noise_is_stored_per_machine(tmp_path):
    assert stored_noise(tmp_path, "one") is None
    store_noise(tmp_path, "one", Noise(0.01, 0.02), 24)
    assert stored_noise(tmp_path, "one") == (0.01, 0.02)
    assert stored_noise(tmp_path, "another") is None
    next((tmp_path / "noise").iterdir()).write_text("[]")
    assert stored_noise(tmp_path, "one") is None
