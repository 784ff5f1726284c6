"""Invalid proxies, certificates, endpoints and tokens: one line that names the variable, retried later."""

from __future__ import annotations

from importlib.util import find_spec

import huggingface_hub
import pytest
from huggingface_hub import constants

from embedcore.errors import HubUnreachable, WeightsUnavailable
from embedcore.zoo import credentials
from embedcore.zoo.hub import Hub
from embedcore.zoo.registry import RemoteFile

REMOTE = RemoteFile("timm/a_model.a_tag", None, ("model.safetensors", "pytorch_model.bin"))
PATH = "/timm/a_model.a_tag/resolve/main/"
pytestmark = pytest.mark.usefixtures("caches")


@pytest.fixture
def fresh_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Create the HTTP client at each call, as in each child process."""
    monkeypatch.setattr(credentials, "get_session", type(huggingface_hub.get_session()))


def refusal(hub: Hub, remote: RemoteFile = REMOTE) -> str:
    """The message of a download that fails temporarily."""
    with pytest.raises(HubUnreachable) as caught:
        hub.download("a_model.a_tag", remote)
    text = str(caught.value)
    assert text.startswith("a_model.a_tag: ") and "\n" not in text and "secret" not in text
    return text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("HTTPS_PROXY", "::::"),
        ("http_proxy", "http://user:p#secret@host:3128"),
        ("HTTP_PROXY", "http://host:secret"),
        ("HTTP_PROXY", "http://[::1"),
        ("HTTP_PROXY", "ftp://user:secret@host:1"),
        ("SSL_CERT_FILE", "/nowhere/certificates.pem"),
    ],
)
def test_a_setting_that_no_client_can_be_made_with_is_named(fake_hub, fresh_client, monkeypatch, name, value):
    address, requests = fake_hub({f"{PATH}model.safetensors": b"safe"})
    if "HTTP_PROXY" not in name.upper():
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:3128")  # not this variable
    monkeypatch.setenv(name, value)
    if value.startswith("socks5") and find_spec("socksio"):
        pytest.skip("SOCKS proxies can be used here")
    hub = Hub(address)
    by_url = RemoteFile(url=f"{address}/a.pth")
    for text in (hub.why_unreachable(REMOTE) or "", refusal(hub), refusal(hub, by_url)):
        assert f"the HTTP client cannot be made: {name}: " in text and "correct or unset it" in text
    assert requests == [] and hub._losses == {}  # no host is paused for it
    for variable in ("HTTP_PROXY", name):
        monkeypatch.delenv(variable, raising=False)
    assert hub.why_unreachable(REMOTE) is None


@pytest.mark.parametrize(
    "endpoint", ["::::", "http://[::1", "hub.example", "http://host:port", "ftp://host", "https://"]
)
def test_an_invalid_endpoint_is_named(endpoint):
    hub = Hub(endpoint)
    assert hub.why_unreachable(REMOTE) == f"HF_ENDPOINT={endpoint} is not of the form https://HOST"
    assert f"HF_ENDPOINT={endpoint}" in refusal(hub) and hub._losses == {}


@pytest.mark.parametrize("host", ["ho\u2026st", "a..b", "a" * 70 + ".example"])
def test_an_unknown_host_name_cannot_be_reached(host):
    assert f"{host} cannot be reached: " in (Hub(f"http://{host}/").why_unreachable(REMOTE) or "")


def test_a_proxy_that_does_not_answer_is_named(fake_hub, closed_port, fresh_client, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", closed_port)
    reason = Hub("http://a.hub.example").why_unreachable(REMOTE) or ""
    assert "a.hub.example cannot be reached: " in reason and " (through the proxy of HTTP_PROXY)" in reason


@pytest.mark.parametrize("token", ["hf_s\u00f6secret", "hf_\u2026secret", "hf_\x01secret", "hf_secret\udce4"])
def test_an_invalid_token_is_named_but_not_shown(fake_hub, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    address, requests = fake_hub({f"{PATH}model.safetensors": b"safe"})
    hub = Hub(address)
    text = refusal(hub)
    assert (
        "the token of HF_TOKEN has a character that an HTTP header cannot contain: renew it or unset HF_TOKEN" in text
    )
    assert hub.why_unreachable(REMOTE) is None and requests == ["HEAD /"]
    monkeypatch.delenv("HF_TOKEN")
    assert hub.download("a_model.a_tag", REMOTE).read_bytes() == b"safe"


def test_a_token_file_that_cannot_be_read_is_named(fake_hub, monkeypatch, tmp_path):
    (tmp_path / "token").write_bytes(b"\xff\xfesecret")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    address, _ = fake_hub({f"{PATH}model.safetensors": b"safe"})
    assert f"the token of {tmp_path / 'token'} cannot be read: " in refusal(Hub(address))


def test_an_expired_token_is_named_and_is_no_lack_of_weights(hub_of, monkeypatch):
    server = hub_of({f"{PATH}model.safetensors": b"safe"})
    server.expired = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub = Hub(server.address)
    with pytest.raises(HubUnreachable) as caught:
        hub.download("a_model.a_tag", REMOTE)
    expected = "(HTTP status 401) with the token of HF_TOKEN: it may have expired: renew it or unset HF_TOKEN"
    assert expected in str(caught.value) and caught.value.host == ""
    assert hub.why_unreachable(REMOTE) is None  # the hub itself works
    monkeypatch.delenv("HF_TOKEN")
    assert hub.download("a_model.a_tag", REMOTE).read_bytes() == b"safe"


def test_an_expired_token_of_a_file_is_named(hub_of, monkeypatch, tmp_path):
    (tmp_path / "token").write_text("hf_secret")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    server = hub_of({f"{PATH}model.safetensors": b"safe"})
    server.expired = "hf_secret"
    assert f"the token of {tmp_path / 'token'}: it may have expired: log in again or out" in refusal(
        Hub(server.address)
    )


@pytest.mark.parametrize(("token", "words"), [("", "asked without a token"), ("hf_secret", "the token of HF_TOKEN")])
@pytest.mark.parametrize("status", [401, 403])
def test_a_request_that_is_refused_may_be_allowed_later(hub_of, monkeypatch, tmp_path, status, token, words):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    server = hub_of({f"{PATH}model.safetensors": (status, "")})
    text = refusal(Hub(server.address))
    assert words in text and f"(HTTP status {status})" in text


@pytest.mark.parametrize("status", [407, 408, 425, 429, 500, 503])
def test_a_temporary_refusal_is_no_lack_of_weights(hub_of, status):
    server = hub_of({f"{PATH}model.safetensors": (status, "")})
    text = refusal(Hub(server.address))
    assert " cannot be reached: " in text and str(status) in text


def test_access_that_the_hub_has_disabled_is_final(hub_of):
    server = hub_of({f"{PATH}model.safetensors": (403, "", "Access to this resource is disabled.")})
    with pytest.raises(WeightsUnavailable, match=r"has disabled access to timm/a_model\.a_tag") as caught:
        Hub(server.address).download("a_model.a_tag", REMOTE)
    assert not isinstance(caught.value, HubUnreachable)
