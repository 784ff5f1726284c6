"""The cases of a session on the workers of a made-up cluster: order, losses, and what the nodes must have."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
import records
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore import CaseSettings, load_dataset
from embedcore.errors import UsageError
from embedcore.measure import cluster
from embedcore.measure.bench import Measured
from embedcore.measure.case import Case
from embedcore.measure.cluster import Cluster, LostError, Slot, Work
from embedcore.measure.cluster_bench import ClusterBench
from embedcore.results.process import TimingProcess
from embedcore.results.result import Result

MODELS = ("test_resnet.r160_in1k", "test_vit.r160_in1k", "test_efficientnet.r160_in1k", "resnet18.a1_in1k")
FACTS = {"timm": "1.0", "torch": "2.14", "python": "3.11", "processor": "CPU, 2 threads"}


def silent(stage, done, total):
    pass


@dataclass(eq=False)
class Call:
    worker: tuple[str, int]
    method: str
    arguments: tuple

    @property
    def models(self):
        return [each.model for each in self.arguments[:1]]


class Nodes:
    """Nodes whose calls end when ``choose`` says so: it gets the open calls and returns one, or None."""

    def __init__(self, hosts=("a", "b"), facts=None, choose=lambda calls: calls[0]):
        self.hosts, self.facts, self.choose = list(hosts), facts or {}, choose
        self.begun, self.given, self.dead, self.closed = 0, [], set(), False

    def slots(self):
        return [Slot(host, host, 1.0) for host in self.hosts]

    def start(self, slot):
        self.begun += 1
        worker = slot.node, self.begun
        return worker, Call(worker, "begin", ())

    def call(self, worker, method, *arguments):
        self.given.append((worker[0], method, arguments[0].model))
        return Call(worker, method, arguments)

    def wait(self, calls, seconds):
        chosen = self.choose(calls) if calls else None
        return () if chosen is None else (chosen,)

    def answer(self, call):
        worker, method, arguments = call.worker, call.method, call.arguments
        if worker in self.dead:
            raise LostError("ActorDiedError: its node has died")
        if method == "begin":
            answer = {"facts": FACTS, "embedcore": "1", "images": "f00d"} | self.facts.get(worker[0], {})
        elif method == "time":
            answer = {"process": msgspec.to_builtins(TimingProcess(started=2.0, durations=(0.5,)))}
        else:
            scores = {"acc": 0.5, "acc5": 0.5}
            result = Result.make(arguments[0].model, family="x", status="ok", dataset="f00d", scores=scores)
            answer = {"result": result.to_json(), "overhead_s": 0.25}
        return msgspec.json.encode(answer), b""

    def stop(self, worker):
        self.dead.add(worker)

    def close(self):
        self.closed = True


@pytest.fixture(scope="module")
def dataset():
    images = [np.full((8, 8, 3), value, np.uint8) for value in (0, 9, 90, 99)]
    return load_dataset(images, list("aabb"))


@pytest.fixture
def bench_on(tmp_path, dataset):
    """A connected bench on such nodes, which expects MODELS, and its record."""

    def bench_on(nodes):
        nodes.facts = {host: {"images": dataset.fingerprint} for host in nodes.hosts} | nodes.facts
        expected = {"embedcore": "1", "timm": "1.0"}
        bench = ClusterBench(CaseSettings(), nodes=lambda: nodes, expected=expected, cache=tmp_path)
        bench.connect(dataset, silent)
        record = records.begun(tmp_path / "runs", MODELS)
        bench.expect({model: model for model in MODELS}, record)
        return bench, record

    return bench_on


def journal(tmp_path):
    return records.models(records.read(*(tmp_path / "runs").glob("*.jsonl")))


def test_results_that_arrive_early_are_in_the_journal_and_wait_for_their_tests(tmp_path, dataset, bench_on):
    first = MODELS[0]
    nodes = Nodes()
    bench, record = bench_on(nodes)

    def others_first(calls):
        late = [call for call in calls if call.models == [first]]
        return next((call for call in calls if call not in late), late[0])

    nodes.choose = others_first
    measured = bench.run(bench.case(first), dataset)
    assert journal(tmp_path) == [*MODELS[1:], first] and [model for _, _, model in nodes.given] == list(MODELS)
    assert (measured.result.node, measured.result.processor, measured.overhead_s) == ("a", FACTS["processor"], 0.25)
    record.keep(measured.result, first, measured.overhead_s)
    for model in MODELS[1:]:
        record.keep(bench.run(bench.case(model), dataset).result, model)
    assert journal(tmp_path) == [*MODELS[1:], first]  # none twice
    assert [line["model"] for line in record.unsent() if "model" in line] == list(MODELS)


def test_a_case_that_runs_again_is_measured_again_as_the_next_one(tmp_path, dataset, bench_on):
    nodes = Nodes(hosts=["a"])
    bench, record = bench_on(nodes)
    for model in (MODELS[0], MODELS[0], MODELS[1]):
        record.keep(bench.run(bench.case(model), dataset).result, model)
    assert [model for _, _, model in nodes.given] == [MODELS[0], MODELS[0], MODELS[1]]
    assert journal(tmp_path).count(MODELS[0]) == 2


def test_other_images_are_refused(bench_on):
    bench, _ = bench_on(Nodes())
    other = load_dataset([np.full((8, 8, 3), value, np.uint8) for value in (1, 2, 3, 4)], list("aabb"))
    with pytest.raises(UsageError, match="only the images of --embed-dataset"):
        bench.run(bench.case(MODELS[0]), other)


def test_a_result_is_timed_again_on_the_same_kind_of_machine(dataset, bench_on):
    nodes = Nodes(facts={"b": {"facts": FACTS | {"gpu": "H100"}, "images": dataset.fingerprint}})
    bench, record = bench_on(nodes)
    results = [bench.run(bench.case(model), dataset).result for model in MODELS]
    assert {result.processor for result in results} == {FACTS["processor"], "H100"}
    nodes.given.clear()
    bench.expect({result.model: result for result in results}, record)
    assert all(isinstance(bench.time(result, dataset), TimingProcess) for result in results)
    assert {(model, host) for host, _, model in nodes.given} == {(result.model, result.node) for result in results}
    nodes.hosts = ["a"]
    nodes.dead |= {("b", 2)}
    on_b = next(result for result in results if result.node == "b")
    failed = bench.time(on_b, dataset)
    assert failed.status == "crashed" and failed.reason == "no worker with H100 is left"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"images": "beef"}, "node b cannot measure: images f00d, now beef"),
        ({"embedcore": "2"}, "node b cannot measure: embedcore 1, now 2"),
        ({"facts": FACTS | {"timm": "0.9"}}, "node b cannot measure: timm 1.0, now 0.9"),
        ({"facts": FACTS | {"torch": "2.13"}}, "node b cannot measure: torch 2.14, now 2.13"),  # unlike node a
        ({"error": "no such folder of images: /data"}, "node b cannot measure: no such folder of images: /data"),
    ],
)
def test_a_node_that_cannot_measure_is_named(facts, message):
    nodes = Cluster(Nodes(facts={"b": facts}), 60.0, {"embedcore": "1", "timm": "1.0", "images": "f00d"})
    with pytest.raises(UsageError, match=f"^{message}$"):
        nodes.begin(silent)


def test_a_cluster_without_room_is_an_error():
    with pytest.raises(UsageError, match=r"^the cluster has no node"):
        cluster_of(Nodes(hosts=[]))


def test_a_worker_that_is_slow_to_start_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.0)
    nodes = Nodes(choose=lambda calls: next((call for call in calls if call.worker[0] == "a"), None))
    assert len(cluster_of(nodes).facts) == 1


def cluster_of(nodes, limit_s=60.0):
    found = Cluster(nodes, limit_s, {"embedcore": "1", "images": "f00d"})
    found.begin(silent)
    return found


def works():
    return [Work(Case(model=model, family="x"), model) for model in MODELS]


def test_a_worker_without_an_answer_is_lost(monkeypatch):
    nodes = Nodes(hosts=["a"])
    found = cluster_of(nodes, limit_s=0.0)
    monkeypatch.setattr(cluster, "MARGIN_S", 0.0)
    nodes.choose = lambda calls: next((call for call in calls if call.method == "begin"), None)
    found.queue += works()
    result = found.outcome(found.queue[0], silent, float("inf")).result
    assert result.status == "crashed" and result.reason.count("no answer in time") == 2


def test_without_a_node_the_session_ends(monkeypatch):
    nodes = Nodes(hosts=["a"])
    found = cluster_of(nodes)
    found.queue += (coming := works())
    nodes.hosts, nodes.dead = [], {("a", 1)}
    monkeypatch.setattr(cluster, "ALONE_S", 0.0)
    with pytest.raises(UsageError, match="no node left; continue with --embed-resume"):
        found.outcome(coming[0], silent, float("inf"))


def test_a_cluster_that_is_lost_ends_the_session(monkeypatch):
    nodes = Nodes()
    found = cluster_of(nodes)

    def lost(calls, seconds):
        raise ConnectionError("no connection to the head")

    monkeypatch.setattr(nodes, "wait", lost)
    with pytest.raises(UsageError, match="the cluster is lost: no connection to the head; continue with"):
        found.outcome(works()[0], silent, float("inf"))


def test_an_error_of_the_images_on_a_node_ends_the_session_in_the_test_of_its_case(monkeypatch):
    nodes = Nodes(hosts=["a"])
    found = cluster_of(nodes)
    found.queue += (coming := works())
    right = Nodes.answer
    wrong = (msgspec.json.encode({"error": "the disk is full"}), b"")
    monkeypatch.setattr(Nodes, "answer", lambda self, call: wrong if call.models == [MODELS[1]] else right(self, call))
    assert found.outcome(coming[0], silent, float("inf")).result.ok
    with pytest.raises(UsageError, match=r"^node a: the disk is full$"):
        found.outcome(coming[1], silent, float("inf"))


def test_idle_workers_of_a_node_that_lost_one_are_replaced_before_they_get_work():
    nodes = Nodes(hosts=["a"])
    slots = [Slot("a", "a", 1.0, card) for card in range(2)] + [Slot("b", "b", 1.0, 0)]
    nodes.slots = lambda: [slot for slot in slots if slot.node in nodes.hosts]
    nodes.hosts = ["a", "b"]
    found = cluster_of(nodes)
    coming = works()[:1]
    found.queue += coming
    nodes.dead = {("a", 1), ("a", 2)}  # the first one gets the case, the second one is idle
    nodes.hosts = ["b"]
    result = found.outcome(coming[0], silent, float("inf")).result
    assert result.ok and result.node == "b"


@settings(deadline=None)
@given(data=st.data(), hosts=st.lists(st.sampled_from("abc"), min_size=1, unique=True))
def test_each_case_has_one_outcome_whatever_is_lost(data, hosts):
    """Any order of ends and losses: a case is begun at most twice, crashed if both workers were lost, else ok."""
    losses = {}
    nodes = Nodes(hosts)

    def choose(calls):
        call = calls[data.draw(st.integers(0, len(calls) - 1))]
        if call.method == "measure" and data.draw(st.booleans()):
            nodes.dead.add(call.worker)
            losses[call.models[0]] = losses.get(call.models[0], 0) + 1
        return call

    found, arrived, warnings = cluster_of(nodes), [], []
    nodes.choose = choose
    found.arrived, found.warn = lambda work, neighbours: arrived.append(work), warnings.append
    coming = works()
    found.queue += coming
    outcomes = [found.outcome(work, silent, float("inf")) for work in coming]
    assert [outcome.result.model for outcome in outcomes] == list(MODELS)
    assert len(arrived) == len(MODELS) and set(arrived) == set(coming) and not found.queue
    for outcome in outcomes:
        assert isinstance(outcome, Measured)
        times = losses.get(outcome.result.model, 0)
        assert (outcome.result.status, outcome.result.dataset) == ("ok" if times < 2 else "crashed", "f00d")
        assert outcome.result.reason.count("its node has died") == (2 if times == 2 else 0)
        assert [model for _, _, model in nodes.given].count(outcome.result.model) == min(times, 1) + 1
    assert len(warnings) == sum(times > 0 for times in losses.values())
    first = dict.fromkeys(model for _, _, model in nodes.given)
    assert list(first) == list(MODELS)
