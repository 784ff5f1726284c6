"""``--embed-shard``: the same division everywhere, and sessions that run their part."""

from __future__ import annotations

import random

import pytest
from forked import ended
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.plugin.cases import case_gmacs
from embedcore.plugin.shards import Shard, divide, parse_shard
from embedcore.results.reading import read_run
from embedcore.zoo.tags import all_tags

MODELS = ("test_resnet.r160_in1k", "test_vit.r160_in1k", "test_efficientnet.r160_in1k")
REFUSED = "--embed-max-params=0.001"  # every model is too large: a result without measuring
COSTS = st.dictionaries(st.text(max_size=4), st.none() | st.floats(0, 1e4), max_size=40)


@settings(deadline=None)  # the suite shares its cores
@given(costs=COSTS, parts=st.integers(1, 12))
def test_every_model_is_in_one_shard(costs, parts):
    shards = divide(costs, parts)
    assert len(shards) == parts
    assert sorted(model for shard in shards for model in shard) == sorted(costs)


@given(costs=COSTS, parts=st.integers(1, 12), seed=st.integers(0, 9))
def test_the_order_of_the_models_does_not_matter(costs, parts, seed):
    models = list(costs)
    random.Random(seed).shuffle(models)
    assert divide({model: costs[model] for model in models}, parts) == divide(costs, parts)


@given(costs=st.dictionaries(st.text(max_size=4), st.floats(0, 1e4), min_size=1, max_size=40), parts=st.integers(1, 12))
def test_no_shard_exceeds_its_share_by_more_than_one_model(costs, parts):
    loads = [sum(costs[model] for model in shard) for shard in divide(costs, parts)]
    assert max(loads) <= sum(costs.values()) / parts + max(costs.values()) * (1 - 1 / parts) + 1e-6


def test_models_without_any_cost_are_spread_by_number():
    assert [len(shard) for shard in divide(dict.fromkeys("abcdefg"), 3)] == [3, 2, 2]
    assert [len(shard) for shard in divide(dict.fromkeys("abcd", 0.0), 4)] == [1, 1, 1, 1]


def test_the_whole_zoo_is_divided_evenly():
    costs = {model: case_gmacs(model) for model in all_tags()}
    known = [cost for cost in costs.values() if cost is not None]
    mean = sum(known) / len(known)
    loads = [sum(costs[model] or mean for model in shard) for shard in divide(costs, 8)]
    assert max(loads) < 1.001 * min(loads)


def test_a_shard_is_read_and_shown():
    assert parse_shard(" 2/8 ") == Shard(2, 8)
    assert str(Shard(2, 8)) == "2/8"


@pytest.mark.parametrize("value", ["0/8", "9/8", "x", "2", "1/0", "-1/8", "1/2/3", "1.5/2", "²/8"])
def test_an_invalid_shard_is_a_usage_error(pytester, value):
    outcome = pytester.runpytest_inprocess(f"--embed-shard={value}")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in outcome.errlines if "error:" in line]
    assert "--embed-shard" in line and value in line and "I" in line and "N" in line


@pytest.fixture
def shards(run, project):
    """Run each shard and return the saved runs."""

    def shards(parts, *arguments):
        runs = []
        for part in range(1, parts + 1):
            outcome = run(REFUSED, f"--embed-shard={part}/{parts}", f"--benchmark-json={part}.json", *arguments)
            assert outcome.ret in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)  # nothing was measured
            runs.append((outcome, read_run(project.path / f"{part}.json")))
        return runs

    return shards


def names(saved_run):
    return [result.model for result in saved_run.excluded]


def test_shards_measure_every_case_once_and_say_which_part_they_are(shards):
    (first, one), (_, two) = shards(2, "--embed-resume")
    assert sorted(names(one) + names(two)) == sorted(MODELS)
    assert 1 <= len(names(one)) <= 2
    first.assert_outcomes(skipped=len(names(one)), deselected=3 - len(names(one)))
    chosen = {"roster": "roster.txt", "family": [], "keyword": "", "marks": ""}
    models = [sorted(result.model for result in (*each.results, *each.excluded)) for each in (one, two)]
    assert [saved_run.selection for saved_run in (one, two)] == [
        chosen | {"shard": "1/2", "other_shards": models[1]},
        chosen | {"shard": "2/2", "other_shards": models[0]},
    ]
    assert one.settings == two.settings
    assert one.unreached == two.unreached == frozenset()


def test_shards_divide_the_cases_selected_by_k(shards):
    (_, one), (_, two) = shards(2, "-k", "test_vit or test_resnet")
    assert len(names(one)) == len(names(two)) == 1
    assert set(names(one) + names(two)) == {"test_vit.r160_in1k", "test_resnet.r160_in1k"}
    assert one.selection["keyword"] == "test_vit or test_resnet"


def test_an_empty_shard_is_no_error_and_saves_a_run(shards):
    (_, one), (empty, two) = shards(2, "-k", "test_vit")
    assert names(one) == ["test_vit.r160_in1k"]
    assert empty.ret == 0
    empty.stdout.fnmatch_lines(["embedcore: shard 2/2 is empty: all cases (1) are in other shards"])
    assert (two.results, two.excluded, two.selection["shard"]) == ((), (), "2/2")


def test_no_case_at_all_stays_an_error(run):
    assert run("--embed-shard=1/2", "-k", "nonsense").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_shards_on_one_machine_do_not_continue_one_another(run, project):
    run(REFUSED, "--embed-shard=1/2")
    (path,) = (project.path / "cache" / "runs").glob("*.jsonl")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])  # as if it had been killed
    other = run(REFUSED, "--embed-shard=2/2", "--embed-resume")
    assert other.ret == pytest.ExitCode.TESTS_FAILED and "resumed" not in other.stdout.str()
    again = run(REFUSED, "--embed-shard=1/2", "--embed-resume")
    again.stdout.fnmatch_lines(["resumed: 0 of * results are from the earlier session"])


def test_unreached_cases_are_in_the_json(run, project, saved):
    (project.path / "conftest.py").write_text(
        "def pytest_runtest_teardown(item):\n    item.session.shouldstop = 'enough'\n"
    )
    run(REFUSED, "--embed-order=roster", "--benchmark-json=run.json")
    assert [entry["model"] for entry in saved()["embedcore"]["excluded"]] == [MODELS[0]]
    assert saved()["embedcore"]["unreached"] == list(MODELS[1:])


def test_the_json_has_timms_old_names(run, project, saved, monkeypatch):
    from embedcore.zoo import registry

    monkeypatch.setattr(
        registry, "renamed_models", lambda: {"old_vit": MODELS[1], "old_net": "test_resnet", "gone": None}
    )
    run(REFUSED, "--benchmark-json=run.json")
    assert saved()["embedcore"]["renamed"] == {"old_vit": MODELS[1], "old_net.r160_in1k": MODELS[0]}


def test_an_empty_shard_is_reported_by_the_controller_of_xdist(project, workers):
    assert ended(workers(1, "--embed-shard=5/5")) == 0
    lines = (project.path / "output").read_text().splitlines()
    assert "embedcore: shard 5/5 is empty: all cases (3) are in other shards" in lines


def test_workers_of_xdist_share_a_shard(workers, saved):
    ended(workers(2, REFUSED, "--embed-shard=1/2", "--benchmark-json=run.json"))
    block = saved()["embedcore"]
    costs = {model: case_gmacs(model) for model in MODELS}
    assert {entry["model"] for entry in block["excluded"]} == divide(costs, 2)[0]
    assert (block["selection"]["shard"], block["unreached"]) == ("1/2", [])
