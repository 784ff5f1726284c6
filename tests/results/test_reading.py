from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import records

from embedcore.errors import UsageError
from embedcore.results.reading import find_run, last_run, read_run
from embedcore.results.result import Result
from embedcore.results.saved import embedcore_block

Make = Callable[..., Result]

DATASET = {"name": "emoji", "fingerprint": "abc", "classes": 2, "queries": 4, "references": 4}


def _saved(results: list[Result], excluded: list[Result]) -> dict[str, Any]:
    return {
        "machine_info": {"node": "ci", "embedcore": {"timm": "1.0.31", "torch": "2.14.0"}},
        "benchmarks": [{"name": f"test_model[{r.model}]", "extra_info": r.extra_info(), "stats": {}} for r in results],
        "datetime": "2030-01-01T00:00:00",
        "version": "5.3.1",
        "embedcore": embedcore_block(settings={"protocol": "native"}, datasets=[DATASET], excluded=excluded),
    }


def _write(path: Path, data: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_a_run_is_read_whole(tmp_path: Path, result_of: Make) -> None:
    results = [result_of("b.x"), result_of("a.x", acc=0.1)]
    excluded = [Result.make("c.x", family="vgg", status="oom", reason="too big")]
    run = read_run(_write(tmp_path / "0003_timm-1.0.31.json", _saved(results, excluded)))
    assert run.results == tuple(results)
    assert run.excluded == tuple(excluded)
    assert (run.settings, run.dataset) == ({"protocol": "native"}, DATASET)
    assert (run.name, run.timm, run.versions["torch"]) == ("timm-1.0.31", "1.0.31", "2.14.0")
    assert (run.machine["node"], run.datetime) == ("ci", "2030-01-01T00:00:00")


def test_other_benchmarks_of_the_session_are_ignored(tmp_path: Path, result_of: Make) -> None:
    data = _saved([result_of("a.x")], [])
    data["benchmarks"] += [{"name": "test_search", "extra_info": {"queries": 5}}, {"name": "test_other"}]
    assert [result.model for result in read_run(_write(tmp_path / "run.json", data)).results] == ["a.x"]


def _without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda data: {name: value for name, value in data.items() if name != key}


def _block(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda data: data | {"embedcore": data["embedcore"] | changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: "", "is not JSON"),
        (lambda data: json.dumps(data)[:-1], "is not JSON"),
        (lambda data: "[" * 100_000, "is not JSON"),
        (lambda data: [data], "is not a run saved by pytest-benchmark"),
        (_without("benchmarks"), "is not a run saved by pytest-benchmark"),
        (_without("machine_info"), "is not a run saved by pytest-benchmark"),
        (_without("embedcore"), "without embedcore"),
        (_block(schema=2), "embedcore schema 2, and this embedcore reads schema 1"),
        (_block(schema=None), "embedcore schema None"),
        (_block(excluded={}), "'excluded' of the embedcore block is not a list"),
        (_block(excluded=[{"model": "c.x"}]), "Object missing required field `family`"),
        (_block(settings=3), "'settings' of the embedcore block is not an object"),
        (
            lambda data: (
                data | {"benchmarks": [{"extra_info": {"model": "a.x", "family": "v", "status": "ok", "dim": "x"}}]}
            ),
            "result of a.x: field 'dim': Expected `int",
        ),
    ],
)
def test_what_is_not_a_run_gets_one_clear_line(
    tmp_path: Path, result_of: Make, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = _write(tmp_path / "run.json", change(_saved([result_of("a.x")], [])))
    with pytest.raises(UsageError, match=message) as caught:
        read_run(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(b"\x80\x81\xff")
    with pytest.raises(UsageError, match="is not JSON"):
        read_run(tmp_path / "run.json")


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    storage = tmp_path / ".benchmarks"
    for name in (
        "py310/0001_old",
        "py310/0002_new",
        "py310/0009_old",
        "py310/0010_old",
        "py311/0001_both",
        "py310/0011_both",
        "py310/2030-01-01",
    ):
        _write(storage / f"{name}.json", {})
    return storage


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("new", "py310/0002_new.json"),
        ("old", "py310/0010_old.json"),
        ("0009", "py310/0009_old.json"),
        ("0009_old", "py310/0009_old.json"),
        ("0009_old.json", "py310/0009_old.json"),
        ("py310/new", "py310/0002_new.json"),
        ("py311/both", "py311/0001_both.json"),
        ("py310/0011", "py310/0011_both.json"),
        ("2030-01-01", "py310/2030-01-01.json"),
    ],
)
def test_a_run_is_found_by_name(storage: Path, where: str, found: str) -> None:
    assert find_run(where, storage=storage) == storage / found


def test_a_path_is_returned_unchanged(storage: Path) -> None:
    path = storage / "py310" / "0001_old.json"
    assert find_run(path, storage=Path("nowhere")) == path
    assert find_run(str(path), storage=Path("nowhere")) == path


def test_a_name_of_several_machines_must_be_chosen(storage: Path) -> None:
    with pytest.raises(UsageError, match=r"several machines in .*: name one, py310/both or py311/both"):
        find_run("both", storage=storage)


def test_a_missing_name_lists_what_there_is(storage: Path) -> None:
    with pytest.raises(UsageError, match=r"no saved run newr: .*\.benchmarks.*did you mean new\?"):
        find_run("newr", storage=storage)
    with pytest.raises(UsageError, match="saved runs: 2030-01-01, both, new, old"):
        find_run("timm-1.0.31", storage=storage)
    with pytest.raises(UsageError, match="saved runs: none"):
        find_run("new", storage=storage / "none")


def test_a_folder_is_returned_unchanged(storage: Path) -> None:
    assert find_run(storage) == storage


def test_a_file_saved_by_pytest_benchmark_is_read(tmp_path: Path, result_of: Make) -> None:
    result = result_of("a.x")
    excluded = Result.make("c.x", family="vgg", status="oom", reason="too big")
    _write(
        tmp_path / "conftest.py",
        "import json, pathlib\n"
        "def pytest_benchmark_update_json(config, benchmarks, output_json):\n"
        "    output_json['embedcore'] = json.loads(pathlib.Path('block.json').read_text())\n",
    )
    _write(
        tmp_path / "test_it.py",
        "import json, pathlib\n"
        "def test_model(benchmark):\n"
        "    benchmark.extra_info.update(json.loads(pathlib.Path('info.json').read_text()))\n"
        "    benchmark.pedantic(int, rounds=2)\n",
    )
    _write(tmp_path / "block.json", embedcore_block(settings={}, datasets=[DATASET], excluded=[excluded]))
    _write(tmp_path / "info.json", result.extra_info())
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:embedcore",
        "-p",
        "no:cacheprovider",
        "--benchmark-save=mine",
    ]
    clean = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    subprocess.run([*command, "test_it.py"], cwd=tmp_path, env=clean, check=True, capture_output=True, timeout=120)
    run = read_run("mine", storage=tmp_path / ".benchmarks")
    assert run.results == (result,)
    assert run.excluded == (excluded,)
    assert run.name == "mine"


def test_several_datasets_are_all_in_the_block_and_excluded_models_name_theirs(result_of: Make) -> None:
    other = DATASET | {"name": "photos", "fingerprint": "def"}
    excluded = [Result.make("c.x", family="vgg", status="oom", reason="too big", dataset="def")]
    block = embedcore_block(settings={}, datasets=[DATASET, other], excluded=excluded)
    assert (block["dataset"], block["datasets"]) == (DATASET, [DATASET, other])
    assert block["excluded"][0]["dataset"] == "def"


def test_a_run_is_a_dataframe_too(tmp_path: Path, result_of: Make) -> None:
    path = _write(tmp_path / "run.json", _saved([result_of("b.x"), result_of("a.x", acc=0.125)], []))
    frame = read_run(path).to_frame()
    assert frame.set_index("model")["scores.acc"].to_dict() == {"b.x": 0.5, "a.x": 0.125}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        *(
            (where, f"a saved run is a path or a name, not a {type(where).__name__}")
            for where in (5, None, b"run.json", ["run.json"])
        ),
        ("a" * 5000, "no saved run a{200}: File name too long"),
    ],
    ids=range(5),
)
def test_invalid_names_of_a_run_are_refused(where: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_run(where)


def test_the_storage_may_be_text(tmp_path: Path, result_of: Make) -> None:
    _write(tmp_path / "machine" / "0001_first.json", _saved([result_of("a.x")], []))
    assert read_run("first", storage=str(tmp_path)).name == "first"
    with pytest.raises(UsageError, match="saved runs: first"):
        read_run("zzz", storage=str(tmp_path))


def test_the_last_run_is_the_one_last_written_to(tmp_path: Path, result_of: Make) -> None:
    with pytest.raises(UsageError, match=r"no run has been measured with the cache folder .*: .*runs has no journal"):
        last_run(tmp_path / "runs")
    path = records.journal(tmp_path / "runs", "run", [result_of("a.x")], ["a.x"])
    assert last_run(tmp_path / "runs") == path
    for name, content in (("torn.jsonl", '{"journal": 3, "iden'), ("not.jsonl", "hello\nworld\n")):
        (tmp_path / "runs" / name).write_text(content)
        with pytest.raises(UsageError, match=name):
            read_run(tmp_path / "runs" / name)
    assert last_run(tmp_path / "runs") == path
