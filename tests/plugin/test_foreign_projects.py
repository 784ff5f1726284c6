"""Unrelated projects in an environment where the plugin is installed."""

from __future__ import annotations

import json
import queue
import re
from types import SimpleNamespace

import pytest
from xdist.workermanage import NodeManager

LIGHT = {
    *("embedcore", "embedcore.errors", "embedcore.plain", "embedcore.files", "embedcore.version", "embedcore.progress"),
    *("embedcore.durations", "embedcore.plugin", "embedcore.plugin.hooks"),
    *("embedcore.plugin.options", "embedcore.plugin.shards", "embedcore.plugin.stash", "embedcore.plugin.budget"),
    *("embedcore.plugin.fixtures", "embedcore.plugin.cases", "embedcore.plugin.workers", "embedcore.plugin.replay"),
    "embedcore.interrupts",
}
"""What a session without our cases may import of the package."""

IMPORTS = """
import json, sys

def pytest_unconfigure():
    ours = sorted(name for name in sys.modules if name.partition(".")[0] == "embedcore")
    heavy = sorted({"torch", "timm", "numpy", "PIL", "msgspec", "tomlkit", "filelock", "psutil"} & {*sys.modules})
    print(f"\\nimported: {json.dumps([ours, heavy])}")
"""

NAMES_OF_OURS = {
    "conftest": """
import pytest

@pytest.fixture
def embed_images():
    return "their images"

@pytest.fixture
def embed_measure():
    return len

@pytest.fixture
def embed_replay():
    return len
""",
    "test_fixture": """
import pytest

@pytest.fixture(params=["a", "b"])
def embed_model(request):
    return request.param

def test_it(embed_model, embed_images, embed_measure, embed_replay):
    assert embed_model in "ab" and embed_measure(embed_images) == 12
""",
    "test_mark": """
import pytest

@pytest.mark.parametrize("embed_model", ["a", "b", "c"])
def test_it(embed_model, embed_images):
    assert embed_model in "abc"

@pytest.mark.parametrize("embed_model, more", [("a", 1)])
class TestOfClass:
    def test_it(self, embed_model, more):
        assert (embed_model, more) == ("a", 1)
""",
    "test_hook/conftest": """
def pytest_generate_tests(metafunc):
    if "embed_model" in metafunc.fixturenames:
        metafunc.parametrize("embed_model", ["d", "e"])
""",
    "test_hook/test_generated": """
def test_it(embed_model):
    assert embed_model in "de"
""",
}


@pytest.fixture
def foreign(pytester, monkeypatch):
    """Run such a project with and without the plugin; return both outcomes and the modules imported with it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytester.path / "cache"))

    def run(files, *arguments):
        for name, content in {"conftest": "", **files}.items():
            path = pytester.path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(content + (IMPORTS if name == "conftest" else ""))
        settings = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio", *arguments)
        with_it = pytester.runpytest_subprocess(*settings)
        without = pytester.runpytest_subprocess(*settings, "-p", "no:embedcore")
        found = re.search(r"^imported: (.*)$", with_it.stdout.str(), re.MULTILINE)
        return with_it, without, json.loads(found[1])

    return run


def test_fixtures_with_our_names_stay_the_projects_own(foreign):
    with_it, without, (ours, heavy) = foreign(NAMES_OF_OURS)
    with_it.assert_outcomes(passed=8)
    without.assert_outcomes(passed=8)
    assert with_it.ret == without.ret == 0
    assert set(ours) <= LIGHT and not heavy


def test_workers_of_xdist_do_not_touch_our_cache(foreign, pytester):
    runs = pytester.path / "cache" / "embedcore" / "runs"
    runs.mkdir(parents=True)
    for number in range(3):
        (runs / f"run{number}.jsonl").write_text('{"journal": 2}\n')
    with_it, *_ = foreign({"test_theirs": "def test_it(): pass"}, "-n1")
    assert with_it.ret == 0
    assert sorted(path.name for path in runs.iterdir()) == [f"run{number}.jsonl" for number in range(3)]


def test_a_configuration_that_was_never_configured_is_no_failure(pytester):
    """As in pytest-xdist's own tests: parsed, then passed to the nodes."""
    config = pytester.parseconfig()
    node = SimpleNamespace(config=config, workerinput={})
    config.hook.pytest_configure_node(node=node)
    config.hook.pytest_testnodedown(node=node, error=None)


def test_a_worker_without_data_from_our_controller_runs(pytester):
    """Its controller's configuration was never configured."""
    pytester.makepyfile("def test_it(): pass")
    events = queue.Queue()
    manager = NodeManager(pytester.parseconfig("-p", "no:rerunfailures"), ["popen"])  # which has the same fault
    try:
        manager.setup_nodes(putevent=events.put)
        seen = []
        while not seen or seen[-1][0] not in ("collectionfinish", "errordown"):
            seen.append(events.get(timeout=120))
        assert seen[-1][0] == "collectionfinish", seen
        assert len(seen[-1][1]["ids"]) == 1
    finally:
        manager.teardown_nodes()


def test_a_regression_of_their_benchmarks_fails_as_without_the_plugin(foreign, pytester):
    slow = "import time\n\ndef test_speed(benchmark):\n    benchmark(time.sleep, {})\n"
    foreign({"test_speed": slow.format(0.001)}, "--benchmark-save=base", "--benchmark-max-time=0.02")
    (pytester.path / "test_speed.py").write_text(slow.format(0.02))
    compared = ("--benchmark-compare", "--benchmark-compare-fail=min:50%", "--benchmark-max-time=0.02")
    with_it, without, _ = foreign({"test_speed": slow.format(0.02)}, *compared)
    assert with_it.ret == without.ret != 0
    for outcome in (with_it, without):
        assert "PerformanceRegression: Performance has regressed" in outcome.stdout.str() + outcome.stderr.str()


def test_an_invalid_option_is_named_also_without_our_tests(pytester):
    pytester.makepyfile("def test_it(): pass")
    pytester.makeini("[pytest]\nembed_rounds = none\n")
    outcome = pytester.runpytest_subprocess()
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["ERROR: ini key embed_rounds: 'none': must be a whole number, 1 or more"])
