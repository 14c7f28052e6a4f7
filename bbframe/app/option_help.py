"""What `--help KEY` prints: an option's type, unit and range from the code, its meaning from the files."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from typing import Annotated, Any, get_args, get_origin

from bbframe import registry
from bbframe.app.field_meanings import MEANINGS
from bbframe.app.places import CONF
from bbframe.config import SELECTION
from bbframe.factory import Source
from bbframe.run.configuration import RunOptions, TrainerOptions
from bbframe.schema import Name, nearest, spell, type_hints

_SELECTION = {key: tuple[Name, ...] | None if key == "out_features" else tuple[int, ...] | None for key in SELECTION}


_NATIVE_ALONE = {f"backbone.{name}" for name in ("source", "checkpoint", "timm_name", "fast")}


def option_classes(config: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The options classes of a configuration's groups, by the beginning of their keys, such as "optim."."""
    groups: dict[str, list[Any]] = {"": [RunOptions], "trainer.": [TrainerOptions], "backbone.": [Source]}
    for group in filter(registry.KINDS.__contains__, config):  # another key may be an interpolation without an end
        node = config[group]
        name = node.get("model_type" if group == "backbone" else "name") if hasattr(node, "keys") else None
        if name is not None:
            with suppress(ValueError):  # the check says what is wrong with it
                groups.setdefault(f"{group}.", []).append(registry.find(str(group), name).options)
    loggers: Any = config.get("logger") if "logger" in config else None
    for key in loggers if hasattr(loggers, "keys") else ():
        entry = loggers[key]
        if hasattr(entry, "keys") and "name" in entry and "_target_" not in entry:
            with suppress(ValueError):
                groups[f"logger.{key}."] = [registry.find("logger", entry["name"]).options]
    return groups


def option_hints(config: Mapping[str, Any]) -> dict[str, Any]:
    """The type of every option of a configuration, with its constraint, by its dotted key."""
    hints: dict[str, Any] = {}
    for prefix, classes in option_classes(config).items():
        for cls in classes:
            names = getattr(cls, "attribute_map", {})
            spelled = {field: alias for alias, field in names.items() if alias in (config.get("backbone") or {})}
            fields = {**type_hints(cls), **(_SELECTION if hasattr(cls, "model_type") else {})}
            for name, hint in fields.items():
                hints.update(_nested(f"{prefix}{spelled.get(name, name)}", hint))
    for key in ("backbone.selection", "backbone.use_pretrained_backbone"):  # set by others
        hints.pop(key, None)
    if (config.get("backbone") or {}).get("model_type") == "timm_backbone":  # timm's name says the rest of the source
        hints = {key: hint for key, hint in hints.items() if key not in _NATIVE_ALONE}
    return hints


def _nested(key: str, hint: Any) -> Iterator[tuple[str, Any]]:
    yield key, hint
    for inner in get_args(hint):
        if is_dataclass(inner) and get_origin(hint) is not Annotated:
            for name, field in type_hints(inner).items():
                yield from _nested(f"{key}.{name}", field)


def option_help(config: Mapping[str, Any], key: str) -> str:
    """An option's type, unit, range, present value and meaning. Raises ValueError for an unknown key."""
    if key == "logger":
        return _logger_help(config)
    hints = option_hints(config)
    if inside := [name for name in hints if name.startswith(f"{key}.")]:
        return "\n  ".join([f"{key}: a group of options", *inside])
    if key not in hints:
        raise ValueError(f"--help {key}: no such option{_elsewhere(key) or nearest(key, hints)}")
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    lines = [
        key,
        f"  type:    {spell(hints[key])}",
        f"  value:   {json.dumps(value, ensure_ascii=False)}",
    ]
    return "\n".join([*lines, *(f"  meaning: {line}" for line in meaning_of(config, key))])


def _logger_help(config: Mapping[str, Any]) -> str:
    """What the group of loggers offers, of which several may be chosen, and what is chosen now."""
    now = ", ".join(config.get("logger") or {}) or "metrics.csv alone"
    lines = ["logger: a group of which several may be chosen: logger=[mlflow,tensorboard]", f"  value:   {now}"]
    for file in sorted((CONF / "logger").glob("*.yaml")):
        comment = itertools.takewhile(lambda line: line[:1] == "#", file.read_text(encoding="utf-8").splitlines())
        lines.append(f"  {file.stem:<12} {' '.join(line.lstrip('# ') for line in comment)}")
    return "\n".join(lines)


def _elsewhere(key: str) -> str:
    """Which other choices of its group have an option, as the end of an error; empty when none has."""
    group, _, name = key.partition(".")
    kinds = registry.names(group) if group in registry.KINDS else []
    having = [choice for choice in kinds if name in type_hints(registry.find(group, choice).options)]
    return f"; it belongs to {group}={' or '.join(having)}: type that before --help" if having else ""


def meaning_of(config: Mapping[str, Any], key: str) -> list[str]:
    """The comment beside a key in the first file that has one."""
    group, _, rest = key.partition(".")
    files = [CONF / "config.yaml"]
    if rest:
        node = config.get(group) or {}
        name = registry.backbone_name(str(node.get("model_type"))) if group == "backbone" else node.get("name")
        choices = (config.get("backbone_name"), name, "default", rest.partition(".")[0])
        files = [CONF / group / f"{choice}.yaml" for choice in choices]
    comment = re.compile(rf"(?m)^ *{re.escape(key.rpartition('.')[2])}:[^#\n]*# (.*(?:\n +# .*)*)")
    for file in files:
        if file.is_file() and (found := comment.search(file.read_text(encoding="utf-8"))):
            return [" ".join(found[1].replace("#", "").split())]
    meaning = MEANINGS.get(rest) if group == "backbone" else None
    return [meaning] if meaning else []
