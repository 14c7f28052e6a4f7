"""Secrets out of the record: tokens and passwords become "***" before anything is written or printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
# A class, mask or padding token is a part of a model; a number of tokens is a count.
SECRET_KEY = re.compile(
    r"(^|[_./@])((?<!class_)(?<!cls_)(?<!mask_)(?<!pad_)(?<!num_)token|passw(or)?d|passphrase|secrets?(_key)?|api_?keys?"
    r"|(access|private)_?key|credentials?|authorization)$"
)
SWITCHES = ("true", "false", "null", "")
INLINE_ITEM = re.compile(r"""([\w.\-]+)(\s*:\s*)("[^"]*"|'[^']*'|[^,{}\[\]]+)""")  # a key and its value inside {...}
URL_LOGIN = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")  # user:password of https://user:password@host
SHORTEST_SECRET = 4  # a shorter literal is masked as a whole value only, not inside other text


def mask_secrets(config: dict[str, Any], secrets: set[str] | None = None) -> dict[str, Any]:
    """A deep copy of `config` with "***" for every value under a key that names a secret, such as `hf_token`.

    Masked in every text too: the literal values in `secrets`, and the login of a URL. Switches (true, false, null)
    stay.
    """
    masked: dict[str, Any] = _mask(config, hidden=False, secrets=secrets or set())
    return masked


def mask_overrides(overrides: list[str], secrets: set[str] | None = None) -> list[str]:
    """Command-line overrides (`+a.token=xyz`, `logger={api_key: xyz}`) with "***" in the place of secrets."""
    masked = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if is_secret(key) and value.lower() not in SWITCHES:
            value = MASK
        value = INLINE_ITEM.sub(lambda item: f"{item[1]}{item[2]}{MASK}" if is_secret(item[1]) else item[0], value)
        masked.append(key + equals + _mask(value, hidden=False, secrets=secrets or set()))
    return masked


def masked_keys(config: Any, prefix: str = "") -> list[str]:
    """The dotted keys whose value the record does not hold, because it was a secret."""
    if isinstance(config, (dict, list)):
        items = config.items() if isinstance(config, dict) else enumerate(config)
        return [key for name, value in items for key in masked_keys(value, f"{prefix}.{name}".lstrip("."))]
    return [prefix] if isinstance(config, str) and MASK in config else []


def is_secret(key: str) -> bool:
    """Whether the name of a key, or of an environment variable, says that its value is nobody else's business."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)  # apiKey -> api_Key
    return SECRET_KEY.search(words.replace("-", "_").lower()) is not None


def _mask(value: Any, hidden: bool, secrets: set[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _mask(item, hidden or is_secret(str(key)), secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mask(item, hidden, secrets) for item in value]
    if hidden:
        return value if value is None or value == "" or isinstance(value, bool) else MASK
    if not isinstance(value, str):
        return value
    if value and value in secrets:
        return MASK
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            value = value.replace(secret, MASK)
    return URL_LOGIN.sub(MASK, value)
