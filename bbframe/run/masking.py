"""Secrets stay on this machine: tokens and passwords become "***" in every text that is written or printed.

Three things give a secret away: the name of its key, its shape, and that it came from an environment variable whose
name says so. Commits, hashes, paths, names of checkpoints and dates stay readable.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any
from urllib.parse import quote

from bbframe.files import visible

MASK = "***"
SWITCHES = ("true", "false", "null", "none", "value", "...", "")  # "value" as in key=value
SHORTEST_SECRET = 6  # a shorter literal is masked only where it is the whole value

# names, by their words: any of SECRET_WORDS, or a last word of LAST_WORDS that no word of MODEL_WORDS stands before
SECRET_WORDS = frozenset(
    "password passwords passwd passphrase pwd pw secret secrets credential credentials authorization authentication "
    "bearer cookie cookies webhook webhooks apikey apikeys jwt dsn".split()
)
LAST_WORDS = frozenset("token tokens key pass auth oauth pat".split())
MODEL_WORDS = frozenset(  # a class token belongs to a model, a number of tokens is a count, an image's key is a column
    "class cls mask pad num number max min total special register prefix patch image visual eos bos sep unk dist "
    "full primary foreign sort label group cache forward backward single multi low high band one two".split()
)
ENDINGS = re.compile(r"(v|v?\d+|values?|strings?|text|header|raw|plain|b64|base64)$")  # api_token_v2, secret_value
COMPOUND = re.compile(  # hftoken, dbpassword: without a separator
    r"(?<!de)token$|(passw(or)?d|pwd|secret)$|^(db|ssh|pg|my|smtp|user|admin|root)pass$"
    r"|(api|access|private|secret|ssh|hf|wandb|openai|auth|account|storage|license|signing|encryption)keys?$"
    r"|(api|access|private|secret|ssh|auth|account)_keys$|conn(ection)?_?str(ing)?$"
    r"|(^|_)(database|db|redis|mongo(db)?|postgres(ql)?|mysql|mariadb|amqp|rabbitmq|broker|jdbc|sqlalchemy)_?ur[li]$"
)

# shapes that scanners of secrets know
SHAPES = re.compile(
    r"(?<![A-Za-z0-9])("
    r"(hf|api_org)_[A-Za-z0-9]{12,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|gl[a-z]{2,5}-[\w-]{16,}"
    r"|sk-(?=[\w-]*\d)[\w-]{16,}|[srp]k_(live|test)_\w{10,}|xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}"
    r"|(AKIA|ASIA)[A-Z0-9]{12,}|AIza[\w-]{30,}|ya29\.[\w-]{10,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{40,}|dop_v1_\w{30,}"
    r"|SG\.[\w-]{16,}\.[\w-]{16,}|eyJ[\w-]{8,}\.[\w-]{8,}(\.[\w-]*)?|wandb_v1_\w{20,}"
    r"|[Bb]earer +(?=\S*\d)[\w.~+/=-]{8,}|[Bb]asic +[A-Za-z0-9+/]{12,}={1,2}"
    r")|-----BEGIN [A-Z ]*PRIVATE KEY-----([^\"']*?-----END [A-Z ]*PRIVATE KEY-----|[^\"']*)"
    r"|(?<=hooks\.slack\.com/services/)[\w/]+|(?<=/api/webhooks/)[\w/-]+"
)
URL_LOGIN = re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s\"']+(?=@)")  # user:password of https://user:password@host
LONG_TEXT = re.compile(r"(?<![\w+=-])[\w+=-]{32,}(?![\w+=-])", re.ASCII)
RUN = re.compile(r"[A-Za-z0-9]{20,}")
VALUE = r"""("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;&'"{}()\[\]]+)"""
ASSIGNED = re.compile(rf"""([A-Za-z_][\w.@/:-]*)={VALUE}""")
HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|x-api-key)(\s*:\s*)[^\r\n\"']+")
INLINE_KEY = re.compile(r"""(["']?)([\w.\-]+)\1\s*:\s*""")  # of {key: value}

_remembered: set[str] = set()  # as read, and as other programs quote it


def remember(values: Iterable[str]) -> None:
    """Mask these values from now on, in every text."""
    for value in values:
        if value.lower() not in SWITCHES:
            _remembered.update(
                (value, value.strip(), json.dumps(value)[1:-1], repr(value)[1:-1], quote(value, safe=""))
            )


def remembered() -> frozenset[str]:
    """The secret values that were met so far."""
    return frozenset(_remembered)


def mask_secrets(value: Any, secrets: Set[str] = frozenset(), hidden: bool = False, by_name: bool = True) -> Any:
    """A deep copy of plain data with "***" for every value under a key that names a secret, such as `hf_token`.

    Every text is masked as `mask_text` does it. Switches (true, false, null) stay. `hidden` says that `value` itself
    lies under such a key; without `by_name` the keys say nothing, as names of classes do not.
    """
    if isinstance(value, Mapping):
        below = {key: hidden or (by_name and is_secret(str(key))) for key in value}
        return {key: mask_secrets(item, secrets, below[key], by_name) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_secrets(item, secrets, hidden, by_name) for item in value]
    if hidden:
        return value if value is None or value == "" or isinstance(value, bool) else MASK
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return MASK if str(value) in secrets | _remembered and len(str(value)) >= SHORTEST_SECRET else value
    return mask_text(value, secrets) if isinstance(value, str) else value


def mask_text(text: str, secrets: Set[str] = frozenset()) -> str:
    """A text with "***" for what is a secret by its shape, by the name that it is assigned to, or by its value."""
    text = _mask_inline(mask_literals(text, secrets))
    text = URL_LOGIN.sub(MASK, SHAPES.sub(MASK, HEADER.sub(rf"\1\2{MASK}", text)))
    return LONG_TEXT.sub(_masked_if_random, ASSIGNED.sub(_masked_if_named, text))


def mask_literals(text: str, secrets: Set[str] = frozenset()) -> str:
    """A text with "***" for the values in `secrets` and those remembered, and for nothing else."""
    secrets = secrets | _remembered
    if text and text in secrets:
        return MASK
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    return text


def outward(text: str) -> str:
    """A text for a terminal or a log: secrets masked, and control characters, as names of files have, spelled out."""
    return visible(mask_text(text), keep="\n\t")


def _masked_if_named(found: re.Match[str]) -> str:
    plain = found[2].strip("\"'")
    return f"{found[1]}={MASK}" if _names_secret(found[1]) and plain.lower() not in SWITCHES else found[0]


def _masked_if_random(found: re.Match[str]) -> str:
    """Mask text as generators of keys make it: upper and lower case and digits in one long run, each often."""
    for run in RUN.findall(found[0]):
        mixed = all(re.search(kind, run) for kind in ("[a-z]", "[A-Z]", r"\d+[A-Za-z]+\d"))
        shares = [run.count(letter) / len(run) for letter in set(run)]
        if mixed and -sum(share * math.log2(share) for share in shares) >= 3.8:
            return MASK
    return found[0]


def mask_overrides(overrides: Sequence[str], secrets: Set[str] = frozenset()) -> list[str]:
    """Command-line overrides (`+a.token=xyz`, `logger={api_key: xyz}`) with "***" in place of secrets."""
    masked = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if _names_secret(key) and value.lower() not in SWITCHES:
            value = MASK
        masked.append(mask_text(key + equals + value, secrets))
    return masked


def _mask_inline(value: str) -> str:
    """A text with "***" behind every key in {...} that names a secret, as Hydra, YAML and Python write it."""
    start = 0
    while found := INLINE_KEY.search(value, start):
        start = found.end()
        inside = value.count("{", 0, found.start()) > value.count("}", 0, found.start())
        if not inside or not _names_secret(found[2]):
            continue
        depth, end = 0, start
        quoted = re.compile(r"\"[^\"]*\"|'[^']*'").match(value, start)
        while quoted is None and end < len(value) and (depth or value[end] not in ",}]"):
            depth += (value[end] in "[{") - (value[end] in "]}")
            end += 1
        end = quoted.end() if quoted else end
        if value[start:end].strip().lower() not in SWITCHES:
            value = value[:start] + MASK + value[end:]
            start += len(MASK)
    return value


def masked_keys(config: Any, prefix: str = "") -> list[str]:
    """The dotted keys of the values that are masked."""
    if isinstance(config, (dict, list)):
        items = config.items() if isinstance(config, dict) else enumerate(config)
        return [key for name, value in items for key in masked_keys(value, f"{prefix}.{name}".lstrip("."))]
    return [prefix] if isinstance(config, str) and MASK in config else []


def _names_secret(key: str) -> bool:
    """Whether a part of a dotted key names a secret."""
    return any(map(is_secret, re.split(r"[.@:/]", key.lstrip("+~"))))


def is_secret(key: str) -> bool:
    """Whether the name of a key or of an environment variable says that its value is a secret."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)  # apiKey -> api_Key
    words = [word.rstrip("0123456789") or word for word in re.split(r"[\W_]+", spaced.lower()) if word]
    while len(words) > 1 and ENDINGS.match(words[-1]) and "_".join(words[-2:]) != "connection_string":
        words.pop()
    if not words:
        return False
    if MODEL_WORDS & set(words[:-1]) and words[-1] in ("token", "tokens", "key", "pass"):
        return False
    name = "_".join(words)
    return bool(SECRET_WORDS & set(words)) or words[-1] in LAST_WORDS or COMPOUND.search(name) is not None
