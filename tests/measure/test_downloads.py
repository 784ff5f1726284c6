from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace

import pytest
import records
import timm
import torch
from safetensors.torch import save

from embedcore.errors import EmbedcoreError
from embedcore.measure import child, executors, inputs, measure
from embedcore.measure.executors import SILENT_S, ChildExecutor, Downloads
from embedcore.measure.measure import attempt
from embedcore.measure.outcome import failure, locate
from embedcore.zoo.hub import Hub

HOUR = 3600.0


@pytest.fixture(scope="module")
def content(case_model):
    torch.manual_seed(3)
    return save(dict(timm.create_model(case_model).state_dict()))


@pytest.fixture(scope="module")
def case_model():
    return "test_resnet.r160_in1k"


@pytest.fixture
def server(hub_of, content, case_model, caches):
    return hub_of({f"/timm/{case_model}/resolve/main/model.safetensors": content})


@pytest.fixture
def online(case, images, server):
    """A case whose weights are on the hub, and its inputs."""
    return dataclasses.replace(case, weights="auto", rounds=1), dataclasses.replace(images, hub=Hub(server.address))


def test_download_time_is_separate_from_the_time_of_the_case(online, monkeypatch):
    """The clock jumps an hour ahead during the download."""
    ahead = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + ahead[0], time=time.time)
    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(inputs, "time", clock)
    download = Hub.download

    def slowly(self, *arguments, **options):
        path = download(self, *arguments, **options)
        ahead[0] += HOUR
        return path

    monkeypatch.setattr(Hub, "download", slowly)
    stages: list[str] = []
    result = attempt(*online, lambda stage, done, total: stages.append(stage))
    assert result.status == "ok" and result.weights["source"] == "hub"
    assert result.download_s >= HOUR > result.measured_s
    assert list(dict.fromkeys(stages)) == ["downloading", "loading", "timing", "embedding", "scoring"]
    again = attempt(*online)
    assert (again.status, again.download_s, again.scores) == ("ok", None, result.scores)


def test_a_download_does_not_count_into_the_time_limit_of_a_case(online, server, faults, shape, tmp_path, monkeypatch):
    """The session's clock jumps an hour ahead once a download was reported; the limit is ten minutes."""
    (file,) = server.files.values()
    file.stalls[:] = [1.0]
    reported: list[str] = []
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + HOUR * (len(reported) > 1))
    monkeypatch.setattr(executors, "SILENT_S", 2 * HOUR)
    monkeypatch.setattr(executors, "Downloads", lambda: Downloads(clock.monotonic))
    monkeypatch.setattr(child, "time", clock)
    case, images = online
    pixels = faults.CacheIn(shape, str(tmp_path / "hub"))
    result = ChildExecutor(timeout_s=600.0).run(
        case, dataclasses.replace(images, pixels=pixels), lambda stage, done, total: reported.append(stage)
    )
    assert (result.status, result.weights.get("source")) == ("ok", "hub"), result.reason
    assert result.download_s >= 1.0 and "downloading" in reported


def test_stages_that_count_as_a_download():
    now = [0.0]
    downloads = Downloads(lambda: now[0])
    seconds = []
    for wait, stage in ((5.0, "downloading"), (3.0, "downloading"), (4.0, "loading"), (9.0, "downloading")):
        now[0] += wait
        downloads.note(stage)
        seconds.append(downloads.seconds())
    assert seconds == [0.0, 3.0, 7.0, 7.0]
    now[0] += SILENT_S - 1
    assert downloads.seconds() == 7.0 + SILENT_S - 1
    now[0] += 100.0
    assert downloads.seconds() == 7.0 + SILENT_S  # a hanging process is killed in the end
    downloads.note("loading")
    assert downloads.seconds() == 7.0 + SILENT_S


@pytest.mark.parametrize("stage", ["late", "stalls"])
def test_a_hub_that_is_silent_for_a_moment_costs_no_case(online, server, stage):
    (file,) = server.files.values()
    getattr(file, stage)[:] = [1.0]
    case, images = online
    hub = Hub(server.address, timeout=0.4)
    result = attempt(case, dataclasses.replace(images, hub=hub))
    assert result.status == "ok", result.reason


@pytest.mark.parametrize("when", ["before", "while"])
def test_settings_that_block_the_hub_are_a_temporary_reason(online, server, when, monkeypatch):
    case, images = online
    if when == "before":
        monkeypatch.setattr("embedcore.zoo.credentials.get_session", _no_client)
        monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
        with pytest.raises(EmbedcoreError) as caught:
            locate(case, images.hub)
        result = failure(case, caught.value)
        assert "ALL_PROXY: no socksio" in result.reason
    else:
        monkeypatch.setenv("HF_TOKEN", "hf_\u2026secret")
        assert locate(case, images.hub) is not None
        result = attempt(case, images)
        assert "HF_TOKEN" in result.reason
    assert (result.status, result.final, result.detail) == ("no-weights", False, "")
    assert "\n" not in result.reason and "secret" not in result.reason


def _no_client():
    raise ImportError("no socksio")


def test_only_models_blocked_by_an_expired_token_are_retried(online, server, tmp_path, monkeypatch):
    case, images = online
    server.expired = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    refused = attempt(case, images)
    assert (refused.status, refused.final) == ("no-weights", False)
    here = attempt(dataclasses.replace(case, model="test_vit.r160_in1k", weights="random"), images)
    planned = [refused.model, here.model]
    first = records.begun(tmp_path, planned, "1")
    records.keep(first, refused, here)
    first.close()
    monkeypatch.delenv("HF_TOKEN")
    second = records.begun(tmp_path, planned, "2", resume=True)
    assert second.done == {here.model}
    assert second.warnings == ["resumed: 1 of 2 results are from the earlier session, 1 is retried (1 no-weights)"]
    result = attempt(case, images)
    records.keep(second, result)
    second.close()
    assert result.status == "ok"
