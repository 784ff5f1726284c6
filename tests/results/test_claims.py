"""Claims of cases in a shared folder: one worker for each case, none is lost, and all workers end together."""

from __future__ import annotations

import heapq
import os
import random
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.errors import UsageError
from embedcore.results.claims import Claims, agree, is_shared, name_of_worker, next_case, shared_run

LEASE = 60.0
TESTS = [f"test_models.py::test_model[m{number}]" for number in range(40)]
IDENTITY = {"seed": 0, "dataset": "f00d", "embedcore": "0.2", "noise": float("nan")}


@pytest.fixture
def worker(tmp_path):
    """Join the run of a folder as a worker; it lives until its heartbeat is too old."""
    return lambda name="w", lease_s=LEASE: Claims(tmp_path, "run", name, lease_s)


def heartbeat(folder: Path, name: str) -> Path:
    return folder / "workers" / name


def kill(folder: Path, name: str) -> None:
    """Make the last heartbeat of a worker older than the lease."""
    now = heartbeat(folder, name).stat().st_mtime
    os.utime(heartbeat(folder, name), (now - LEASE - 1, now - LEASE - 1))


# One run


def test_the_first_worker_names_the_run_and_others_join_it(tmp_path):
    folder = tmp_path / "shared" / "run"
    assert agree(folder, "first", IDENTITY) == "first"
    assert agree(folder, "second", dict(IDENTITY)) == "first"
    assert shared_run(folder)["identity"] == {**IDENTITY, "noise": None}
    assert [path.name for path in folder.iterdir()] == ["identity.json"] and not is_shared(folder)
    Claims(folder, "first", "w")
    assert is_shared(folder)


def test_workers_that_begin_at_once_agree_on_one_run(tmp_path):
    for round_ in range(20):
        names, barrier = [], threading.Barrier(8)

        def begin(number, folder=tmp_path / str(round_), names=names, barrier=barrier):
            barrier.wait()
            names.append(agree(folder, f"run-{number}", IDENTITY))

        in_threads(begin, 8)
        assert len(names) == 8 and len(set(names)) == 1


def in_threads(work, count):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_other_settings_are_refused_with_the_differences(tmp_path):
    agree(tmp_path, "first", IDENTITY)
    with pytest.raises(UsageError, match=r"other settings: seed 0, now 5\. Use its settings, or another folder$"):
        agree(tmp_path, "second", {**IDENTITY, "seed": 5})


@pytest.mark.parametrize("content", ['{"benchmarks": []}', "", '{"run": "x", "crc32": "00000000"}'])
def test_a_folder_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "identity.json").write_text(content)
    with pytest.raises(UsageError, match=r"identity\.json .*use another folder") as caught:
        agree(tmp_path, "run", IDENTITY)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "identity.json").read_text() == content


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--embed-claim: .*file.* cannot be used: "):
        agree(tmp_path / "file" / "run", "run", IDENTITY)


def test_a_worker_that_begins_again_under_its_name_has_another(tmp_path, worker):
    assert [worker().worker.name for _ in range(3)] == ["w", "w-2", "w-3"]
    assert "." not in name_of_worker() and "/" not in name_of_worker() and str(os.getpid()) in name_of_worker()


# Claims


def test_workers_that_race_claim_each_case_once(worker):
    claimed, barrier = [], threading.Barrier(8)

    def work(number):
        claims, tests = worker(f"w{number}"), random.Random(number).sample(TESTS, len(TESTS))
        barrier.wait()
        claimed.extend(test for test in tests if claims.claim(test, 0))

    in_threads(work, 8)
    assert sorted(claimed) == sorted(TESTS)


def test_an_expired_claim_is_taken_over_by_exactly_one(tmp_path, worker):
    dead, workers = worker("dead"), [worker(f"w{number}") for number in range(4)]
    assert dead.claim(TESTS[0], 0)
    assert workers[0].overview(TESTS[:1]).held.keys() == {TESTS[0]}
    kill(tmp_path, "dead")
    views = [claims.overview(TESTS[:1]) for claims in workers]
    assert all(view.free == {TESTS[0]: 1} and view.workers == 4 for view in views)
    assert [claims.claim(TESTS[0], 1) for claims in workers].count(True) == 1
    view = workers[1].overview(TESTS[:1])
    assert not view.free and view.held.keys() == {TESTS[0]}


def test_the_cases_of_a_worker_that_ended_are_free_at_once(worker):
    other = worker("other")
    with worker("w") as ending:
        assert ending.claim(TESTS[0], 0) and ending.claim(TESTS[1], 0)
        ending.finish(TESTS[1], final=True)
        assert other.overview(TESTS[:2]).workers == 2
    assert other.overview(TESTS[:2]) == ({TESTS[0]: 1}, {}, 1)


def test_a_worker_that_was_killed_before_it_wrote_its_name_loses_the_case_too(tmp_path, worker):
    claims = worker()
    assert worker("dead").claim(TESTS[0], 0)
    (path,) = (tmp_path / "claims").iterdir()
    path.write_text("")
    assert claims.overview(TESTS[:1]).held.keys() == {TESTS[0]}
    os.utime(path, (1, 1))
    assert claims.overview(TESTS[:1]).free == {TESTS[0]: 1}


def test_no_clock_of_this_machine_is_read(tmp_path, worker, monkeypatch):
    """All times are those of the file system, of which the clock may be wrong by any amount."""
    for name in ("time", "time_ns", "monotonic"):
        monkeypatch.setattr(time, name, lambda: 1 / 0)
    touch, skew = os.utime, -1e6

    def utime(path, times=None):
        touch(path)
        if times is None:
            now = os.stat(path).st_mtime + skew  # noqa: PTH116
            times = (now, now)
        touch(path, times)

    monkeypatch.setattr(os, "utime", utime)
    one, other = worker("one"), worker("other")
    one.now()
    assert one.claim(TESTS[0], 0)
    assert other.overview(TESTS[:1]) == ({}, {TESTS[0]: pytest.approx(one.now(), abs=5)}, 2)
    kill(tmp_path, "one")
    assert other.overview(TESTS[:1]) == ({TESTS[0]: 1}, {}, 1)


def test_a_temporary_failure_is_tried_again_by_workers_that_join_later(worker):
    first, beside = worker("first"), worker("beside")
    assert first.claim(TESTS[0], 0)
    first.finish(TESTS[0], final=False)
    assert first.overview(TESTS[:1])[:2] == beside.overview(TESTS[:1])[:2] == ({}, {})
    later, last = worker("later"), worker("last")
    assert later.overview(TESTS[:1]).free == last.overview(TESTS[:1]).free == {TESTS[0]: 1}
    assert later.claim(TESTS[0], 1)
    assert last.overview(TESTS[:1]).held.keys() == {TESTS[0]}
    later.finish(TESTS[0], final=True)
    assert worker("end").overview(TESTS[:1])[:2] == ({}, {})


def test_a_case_that_was_done_after_the_overview_is_not_claimed(tmp_path, worker):
    """Its worker was taken for dead, or ended, in between."""
    slow, other = worker("slow"), worker("other")
    assert slow.claim(TESTS[0], 0)
    kill(tmp_path, "slow")
    assert other.overview(TESTS[:1]).free == {TESTS[0]: 1}
    slow.finish(TESTS[0], final=True)
    assert not other.claim(TESTS[0], 1)
    assert other.overview(TESTS[:1])[:2] == ({}, {})


def test_the_heartbeat_is_renewed_while_a_worker_lives(tmp_path, worker):
    with worker(lease_s=0.2):
        before = heartbeat(tmp_path, "w").stat().st_mtime_ns
        deadline = time.monotonic() + 60
        while heartbeat(tmp_path, "w").stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert heartbeat(tmp_path, "w").stat().st_mtime == 0


def test_files_that_are_no_claims_are_ignored(tmp_path, worker):
    claims = worker()
    for name in (".nfs0001", "identity.json.partial", f"{'0' * 32}.x", f"{'0' * 32}.1.final"):
        (tmp_path / "claims" / name).touch()
    assert claims.overview(TESTS[:1]).free == {TESTS[0]: 0}


@pytest.mark.parametrize("seed", range(5))
def test_no_case_is_lost_and_a_live_worker_shares_none(tmp_path, seed):
    """Workers in a random order join, claim, finish, die and are taken for dead, against a model of the folder."""
    chance, tests = random.Random(seed), TESTS[:12]
    workers: dict[str, tuple[Claims, set[str]]] = {}
    done, joined = set(), 0
    while len(done) < len(tests):
        if not workers or chance.random() < 0.1:
            joined += 1
            workers[f"w{joined}"] = Claims(tmp_path, "run", f"w{joined}", LEASE), set()
        name = chance.choice(list(workers))
        claims, ours = workers[name]
        if chance.random() < 0.15 and len(workers) > 1:
            kill(tmp_path, name)
            del workers[name]
            continue
        view = claims.overview(tests)
        live = {test for _, held in workers.values() for test in held}
        assert view.free.keys() == set(tests) - done - live and view.held.keys() == live
        assert view.workers == len(workers)
        if ours and chance.random() < 0.6:
            test = ours.pop()
            claims.finish(test, final=True)
            done.add(test)
        elif view.free:
            test = chance.choice(list(view.free))
            assert claims.claim(test, view.free[test])
            ours.add(test)


# The order


def makespan(costs, workers, *, ahead):
    """Time until the last worker ends, if each claims as the plugin does: with `ahead`, one case while one runs."""
    left, ends = dict(enumerate(costs)), [(0.0, number, None) for number in range(workers)]
    end = 0.0

    def claim(**how):
        case = next_case(left, workers, lambda case: True, **how)
        return None if case is None else left.pop(case)

    while ends:
        now, number, following = heapq.heappop(ends)
        cost = claim() if following is None else following
        if cost is not None:
            end = max(end, now + cost)
            heapq.heappush(ends, (now + cost, number, claim(ahead=True) if ahead else None))
    assert not left
    return end


def longest_first(costs, workers):
    """Time of Graham's LPT schedule."""
    loads = [0.0] * workers
    for cost in sorted(costs, reverse=True):
        heapq.heapreplace(loads, loads[0] + cost)
    return max(loads)


COSTS = st.lists(st.floats(0.01, 1e4) | st.sampled_from([1.0, 30.0, 1000.0]), min_size=1, max_size=60)


@settings(deadline=None)
@given(costs=COSTS, workers=st.integers(1, 8), ordered=st.booleans())
def test_all_workers_end_together(costs, workers, ordered):
    costs = sorted(costs) if ordered else costs
    best = longest_first(costs, workers) * (1 + 1e-9)
    assert makespan(costs, workers, ahead=False) <= 1.5 * best
    assert makespan(costs, workers, ahead=True) <= 2 * best


@pytest.mark.parametrize("workers", [2, 8])
def test_the_whole_zoo_ends_together(workers):
    from embedcore.plugin.cases import case_gmacs
    from embedcore.zoo.tags import all_tags

    costs = sorted(filter(None, map(case_gmacs, all_tags())))
    assert makespan(costs, workers, ahead=True) <= 1.05 * longest_first(costs, workers)


def test_the_order_of_the_session_until_the_costliest_would_end_last():
    costs = {"b": 2.0, "a": 1.0, **{f"c{number}": 9.0 for number in range(8)}}
    assert next_case(costs, 2, lambda case: True) == "b"
    assert next_case(costs, 2, lambda case: True, ahead=True) == "b"
    assert next_case(costs, 8, lambda case: True) == "c0"
    assert next_case(costs, 8, lambda case: True, ahead=True) is None
    assert next_case({"a": None, "b": None, "c": None}, 1, lambda case: True) == "a"
    assert next_case({}, 3, lambda case: True) is None


def test_the_costliest_that_fits_into_the_time_left():
    costs = {"a": 1.0, "b": 5.0, "c": 9.0}
    assert next_case(costs, 3, lambda case: costs[case] < 9) == "b"
    assert next_case(costs, 3, lambda case: False) is None
