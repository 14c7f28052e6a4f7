"""What whoever gets a network is told about its training: data, metrics and command, no paths and no secrets."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from bbframe.registry import plugins
from bbframe.run.checkpoint import SavedRun
from bbframe.run.masking import mask_overrides, mask_secrets
from bbframe.schema import Range, parse

PATH = "..."  # stands for a path of the machine that trained
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PLACES = re.compile(r"(^|[._])(root|roots|folder|dir|path|file|files|csv|annotations|images|masks|out|exclude)$")
# what says where a run was filed and who saw it, not what was trained
_PRIVATE = re.compile(r"[+~]*(hydra|logger|callbacks|output_dir|name|tags|ckpt_path|rerun)\b")

Numbers = Mapping[str, Annotated[float, Range(-1e18, 1e18)] | None]
Count = Annotated[int, Range(0, 10**18)]


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What a model card says.

    `checkpoint` is the Hub id of the pretrained weights, at the commit `revision`. `images` counts those of each part;
    `test`, `test_low` and `test_high` are metrics on `test_images` images of `test_part` with their 95 % intervals.
    `overrides` is the command, without paths. A fact that nobody knows is None or empty.
    """

    backbone: str = ""
    source: str = ""
    checkpoint: str | None = None
    revision: str | None = None
    data: str = ""
    images: Mapping[str, Count] = field(default_factory=dict)
    image_size: tuple[Count, Count] | None = None
    epochs: Count | None = None
    params: Count | None = None
    gmacs: Annotated[float, Range(0, 1e18)] | None = None
    seed: int | None = None
    metric: str | None = None
    test: Numbers = field(default_factory=dict)
    test_low: Numbers = field(default_factory=dict)
    test_high: Numbers = field(default_factory=dict)
    test_part: str | None = None
    test_images: Count | None = None
    calibration: Numbers = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    versions: Mapping[str, str | None] = field(default_factory=dict)


MEASURED = (
    "image_size epochs params gmacs seed metric test test_low test_high test_part test_images calibration".split()
)


def facts_of_run(checkpoint: Path, run: SavedRun) -> TrainingFacts:
    """The facts of the run that left a checkpoint.

    The metrics are there for the weights that the run has tested, those of best.ckpt where there is one. Raises
    ValueError that names a broken file.
    """
    home = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    best = checkpoint.with_name("best.ckpt")
    tested = checkpoint.name == best.name or not best.is_file()
    summary = _json(home / "metrics.json") if tested else {}
    recorded = _json(home / "environment.json")
    config = run.config
    counts = summary.get("data_summary") or {}
    facts: dict[str, Any] = {key: summary[key] for key in MEASURED if key in summary}
    facts["images"] = counts.get("images") or {}
    facts["versions"] = recorded.get("versions") or {}
    facts["overrides"] = public_overrides(run.overrides)
    facts["data"] = str(_below(config, "data", "name") or "")
    facts["backbone"] = str(summary.get("backbone") or config.get("backbone_name") or run.backbone.get("model_type"))
    facts["source"] = str(summary.get("source") or "")
    facts["checkpoint"], facts["revision"] = _weights(config, recorded.get("weights") or {})
    return parse(TrainingFacts, mask_secrets(facts, by_name=False), f"{home}: metrics.json and environment.json")


def _json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file, empty where there is no file. Raises ValueError for anything else."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: must hold a mapping, not {type(data).__name__}")
    return data


def _below(config: Mapping[str, Any], group: str, key: str) -> Any:
    inner = config.get(group)
    return inner.get(key) if isinstance(inner, Mapping) else None


def _weights(config: Mapping[str, Any], loaded: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The Hub id and the commit of the pretrained weights; (None, None) for fresh weights and for local files."""
    if not _below(config, "backbone", "pretrained"):
        return None, None
    source, revision = loaded.get("source"), loaded.get("revision")
    source = str(source or _below(config, "backbone", "checkpoint") or "")
    revision = str(revision or _below(config, "backbone", "revision") or "")
    on_hub = _HUB_ID.fullmatch(source) and _COMMIT.fullmatch(revision)  # a file on a disk has no commit
    return (source, revision) if on_hub else (None, None)


def public_overrides(overrides: Sequence[str]) -> list[str]:
    """A command line's overrides, secrets masked, for strangers: paths become "...", and places of the run go.

    A Hub id stays where no folder of that name is here.
    """
    kept = [override for override in mask_overrides(overrides) if not _PRIVATE.match(override)]
    return [_without_path(override) for override in kept]


def _without_path(override: str) -> str:
    key, equals, value = override.partition("=")
    bare = value.strip("'\"")
    if key in ("backbone.checkpoint", "backbone.name", "backbone.backbone") and not os.path.exists(bare):
        hub_id = bare.removeprefix("hf-hub:").removeprefix("hf_hub:")
        if _HUB_ID.fullmatch(hub_id.partition("@")[0]) and not hub_id.startswith("."):
            return override
    names_place = _PLACES.search(key) is not None and bare not in ("", "null")
    looks_like = "/" in value or "\\" in value or "~" in value or (bool(bare) and os.path.exists(bare))
    return f"{key}={PATH}" if equals and (names_place or looks_like) else override


def plugins_of(parts: Sequence[Any]) -> list[dict[str, str | None]]:
    """The plugins that brought some parts, by module, version and SHA-256 of its file, in the form of a record."""
    modules = {part.plugin for part in parts if part.plugin is not None}
    known = {plugin.module: plugin for plugin in plugins()}
    return [
        {"module": name, "version": known[name].version, "sha256": known[name].sha256}
        if name in known
        else {"module": name, "version": None, "sha256": None}
        for name in sorted(modules)
    ]
