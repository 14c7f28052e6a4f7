"""Secrets stay out of the record: tokens and passwords become "***" before anything is written or printed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

MASK = "***"
# a class, mask or padding token belongs to a model, and a number of tokens is a count: neither is a secret
SECRET_KEY = re.compile(
    r"(^|[_./@])((?<!class_)(?<!cls_)(?<!mask_)(?<!pad_)(?<!num_)token|passw(or)?d|passphrase|secrets?(_key)?|api_?keys?"
    r"|(access|private)_?key|credentials?|authorization)$"
)
SWITCHES = ("true", "false", "null", "")
INLINE_ITEM = re.compile(r"""([\w.\-]+)(\s*:\s*)("[^"]*"|'[^']*'|[^,{}\[\]]+)""")  # a key and its value inside {...}
URL_LOGIN = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")  # user:password of https://user:password@host
SHORTEST_SECRET = 4  # a shorter literal is masked only where it is the whole value


def mask_secrets(value: Any, secrets: Set[str] = frozenset(), hidden: bool = False) -> Any:
    """A deep copy of plain data with "***" for every value under a key that names a secret, such as `hf_token`.

    In every text, the literal values in `secrets` and the login of a URL are masked too. Switches (true, false, null)
    stay. `hidden` says that `value` itself lies under such a key.
    """
    if isinstance(value, Mapping):
        return {key: mask_secrets(item, secrets, hidden or is_secret(str(key))) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_secrets(item, secrets, hidden) for item in value]
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


def mask_overrides(overrides: Sequence[str], secrets: Set[str] = frozenset()) -> list[str]:
    """Command-line overrides (`+a.token=xyz`, `logger={api_key: xyz}`) with "***" in place of secrets."""
    masked = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if is_secret(key) and value.lower() not in SWITCHES:
            value = MASK
        value = INLINE_ITEM.sub(lambda item: f"{item[1]}{item[2]}{MASK}" if is_secret(item[1]) else item[0], value)
        masked.append(key + equals + mask_secrets(value, secrets))
    return masked


def masked_keys(config: Any, prefix: str = "") -> list[str]:
    """The dotted keys of the values that are masked."""
    if isinstance(config, (dict, list)):
        items = config.items() if isinstance(config, dict) else enumerate(config)
        return [key for name, value in items for key in masked_keys(value, f"{prefix}.{name}".lstrip("."))]
    return [prefix] if isinstance(config, str) and MASK in config else []


def is_secret(key: str) -> bool:
    """Whether the name of a key or of an environment variable says that its value is a secret."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)  # apiKey -> api_Key
    return SECRET_KEY.search(words.replace("-", "_").lower()) is not None
