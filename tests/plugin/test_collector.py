from __future__ import annotations

import json
from types import SimpleNamespace

from _pytest.reports import TestReport

from embedcore.plugin.collector import Collector
from embedcore.results.result import Result


def test_results_of_xdist_workers_reach_the_controller():
    """Reports carry results as plain values, which is what pytest-xdist sends; names of classes go with the first."""
    block = {"classes": 3, "fingerprint": "abc"}
    session = SimpleNamespace(
        settings={"protocol": "native"},
        machine={"timm": "1.0"},
        blocks={"abc": block},
        models=("a.b", "c.d", "e.f"),
        costs=lambda: {"t[a]": ("a.b", 1.0), "t[c]": ("c.d", None), "t[e]": ("e.f", 1.0)},
        noise=0.02,
        books=SimpleNamespace(run="20260102T030405"),
        to_fetch={"e.f"},
    )
    worker, controller = Collector(), Collector()
    report = TestReport("id", ("file", 1, "name"), {}, "passed", None, "setup")
    worker.attach(report, [], session)
    sent = [json.dumps(report._to_json())]
    controller.pytest_runtest_logreport(TestReport._from_json(json.loads(sent[0])))
    assert controller.cases == session.costs() and controller.to_fetch == {"e.f"}
    for test, model in (("t[a]", "a.b"), ("t[c]", "c.d")):
        report = TestReport(test, ("file", 1, "name"), {}, "passed", None, "call")
        measured = {"status": "ok", "scores": {"acc": 0.5, "acc5": 0.3}, "durations": (0.1, 0.1), "measured_s": 10.0}
        outcome = measured if model == "a.b" else {"status": "oom", "reason": "memory"}
        result = Result.make(model, family="resnet", dataset="abc", **outcome)
        worker.attach(report, [result], session)
        report.worker_id = f"gw{len(sent)}"
        sent.append(json.dumps(report._to_json()))
        controller.pytest_runtest_logreport(TestReport._from_json(json.loads(sent[-1])))
    assert ["classes" in text for text in sent] == [True, False, False]
    assert list(controller.results) == [("a.b", "abc"), ("c.d", "abc")]
    saved = controller.json_block({"keyword": "x"})
    assert saved["dataset"] == block and saved["selection"] == {"keyword": "x"}
    assert saved["unreached"] == ["e.f"] and saved["noise"] == 0.02
    assert controller.machine == {"timm": "1.0"}
    left, (least, most) = controller.remaining()
    assert left == 1 and 2 < least < 5 < most < 12
