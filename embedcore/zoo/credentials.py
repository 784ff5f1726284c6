"""Proxies and the hub's token in the environment: find settings that cannot work, and name the variable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import huggingface_hub
from huggingface_hub import constants, get_session

from embedcore.errors import EmbedcoreError

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_TOKENS = ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # in huggingface_hub's order


class SettingsError(EmbedcoreError):
    """A proxy, certificate or token setting cannot be used. The message names the variable and contains no secret."""


def http_client() -> Any:
    """Return huggingface_hub's shared HTTP client, which is made by the first call.

    Raises SettingsError if it cannot be made, such as with a SOCKS proxy but without the package for it.
    """
    try:
        return get_session()
    except Exception as error:  # each version of the HTTP library has its own
        names = _faulty_settings()
        why = f"not of the form http://HOST:PORT ({type(error).__name__})"  # a longer text may quote a password
        if isinstance(error, ImportError | OSError):
            why = first_line(error).rstrip(".")
        where = f"{', '.join(names)}: " if names else ""
        raise SettingsError(f"the HTTP client cannot be made: {where}{why}; correct or unset it") from error


def _faulty_settings() -> list[str]:
    """Return the environment variables that most likely keep the client from being made."""
    proxies = {name: value for name, value in os.environ.items() if name.lower() in _PROXIES and value}
    odd = [name for name, value in proxies.items() if not is_http(value if "://" in value else f"http://{value}")]
    absent = [name for name in _CERTIFICATES if os.environ.get(name) and not Path(os.environ[name]).exists()]
    return odd or absent or list(proxies)


def is_http(address: str) -> bool:
    """Return whether an address has the form ``http://HOST:PORT`` or ``https://…``."""
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def through_proxy(address: str) -> str:
    """Return the variable, in brackets, of the proxy that a request to an address uses; "" for none."""
    parts = urlsplit(address)
    names = [name for name in os.environ if name.lower() in (f"{parts.scheme}_proxy", "all_proxy") and os.environ[name]]
    return f" (through the proxy of {', '.join(names)})" if names and not proxy_bypass(parts.hostname or "") else ""


def token() -> str | None:
    """Return the token that huggingface_hub sends, or None.

    Raises SettingsError if it cannot be read, or has a character that an HTTP header cannot contain.
    """
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    try:
        found = huggingface_hub.get_token()
    except Exception as error:  # from the file, or the exchange of one token for another
        raise SettingsError(f"the token of {token_source()} cannot be read: {first_line(error)}") from error
    if found is not None and not (found.isascii() and found.isprintable()):
        raise SettingsError(
            f"the token of {token_source()} has a character that an HTTP header cannot contain: {token_remedy()}"
        )
    return found


def token_source() -> str:
    """Return the variable or the file that the token comes from."""
    return next((name for name in _TOKENS if os.environ.get(name)), str(constants.HF_TOKEN_PATH))


def token_remedy() -> str:
    """Return what the user can do about a token that does not work, as the end of a sentence."""
    source = token_source()
    return f"renew it or unset {source}" if source in _TOKENS else "log in again or out (hf auth login, hf auth logout)"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, at most 200 characters; its type if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
