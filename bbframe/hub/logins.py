"""Logins: which token is sent to which Hub, and how texts and logs are kept free of it."""

from __future__ import annotations

import logging
import os
import re
from urllib.parse import urlsplit

# what clients of HTTP call a broken connection; httpx, requests and Python each have their own classes
_BROKEN = frozenset(
    "ConnectionError NetworkError ProxyError RemoteProtocolError Timeout TimeoutError TimeoutException gaierror "
    "SSLError".split()
)


class _MaskedLogins(logging.Filter):
    """Masks the logins in what the client, and its client of HTTP, write about their requests."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_logins(record.getMessage()), ()
        return True


_MASKED = _MaskedLogins()


def mask_logs() -> None:
    """Mask the logins in what the client and its client of HTTP log from now on."""
    for place in (
        *logging.getLogger("huggingface_hub").handlers,
        *map(logging.getLogger, ("httpx", "httpx2", "urllib3.connectionpool", "huggingface_hub.utils._http")),
    ):
        place.addFilter(_MASKED)


def mirror() -> str | None:
    """The endpoint that replaces huggingface.co, without its password; None when there is none."""
    from huggingface_hub import constants

    place = urlsplit(constants.ENDPOINT)
    own = place.scheme == "https" and f".{place.hostname}".endswith(".huggingface.co")
    return None if own else place._replace(netloc=place.netloc.rpartition("@")[2]).geturl()


def token_to_send() -> str | bool | None:
    """The token to send when none is given. None leaves the choice to the client, which sends a login's anywhere."""
    from huggingface_hub import constants

    if mirror() is None:
        return None
    return (not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and os.environ.get("HF_TOKEN", "").strip()) or False


def login_advice() -> str:
    """What to do for a token, and which one goes to a Hub that HF_ENDPOINT names."""
    place = mirror()
    return "run `hf auth login`" + (f"; {place} is sent a given token or HF_TOKEN's, no login's" if place else "")


def connection_broken(error: BaseException) -> bool:
    """Whether an error is one of a connection: no route, no name, no certificate, no answer."""
    return bool(_BROKEN & {base.__name__ for base in type(error).__mro__})


def status_code(error: BaseException) -> int | None:
    """The status of the answer that an error is about; None without one."""
    return getattr(getattr(error, "response", None), "status_code", None)


def first_line(error: BaseException) -> str:
    """What an error says in its first line, logins masked, or its name when it says nothing."""
    return without_logins((str(error).strip() or type(error).__name__).splitlines()[0])


def without_logins(text: str) -> str:
    """A text without the logins in its URLs and headers."""
    return re.sub(r"(?<=//)[^/\s'\"]*@|hf_[A-Za-z0-9]{3,}|(?<=Bearer )[^\s'\"]+", "***", text)
