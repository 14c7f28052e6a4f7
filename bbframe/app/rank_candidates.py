"""The candidates of `bbframe rank` as configurations: found by their words, composed, and checked before any loads."""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bbframe.app.command_line import quoted
from bbframe.app.composition import Compose, every_choice
from bbframe.app.hydra_settings import choices
from bbframe.app.places import file_choices
from bbframe.app.run_request import RunRequest
from bbframe.config import BackboneConfigMixin
from bbframe.hub.availability import are_weights_here, why_unreachable
from bbframe.rank.candidates import (
    LISTS,
    Candidate,
    chosen_candidates,
    default_candidates,
    from_catalog,
    unknown_word,
    without_twins,
)
from bbframe.schema import nearest

TIMM = "timm/"  # in front of a name of timm's, as timm's own repositories on the Hub are called
MOST_OF_TIMM = 200  # networks that one pattern may name


@dataclass
class FoundCandidates:
    """The candidates, why others that were asked for are not among them, {reason: names}, and what must be said."""

    candidates: list[Candidate]
    left_out: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)


def find_candidates(
    compose: Compose, words: Sequence[str], config_dir: Path | None, pretrained: bool
) -> FoundCandidates:
    """The candidates that words name; without words a small and a standard variant of each architecture.

    With `pretrained` those whose weights cannot be had are left out, and named with the reason. Raises ValueError for
    a word that chooses nothing.
    """
    names = choices(config_dir)["backbone"]
    if not words:
        had, left_out = _that_can_be_had(without_twins(_catalog(compose, names)), pretrained)
        return FoundCandidates(default_candidates(had), {} if had else left_out)
    found: dict[str, Candidate] = {}
    wrong: dict[str, list[str]] = {}
    for word in _with_folders(words, names):
        if word in names and word != "timm":
            some = _catalog(compose, [word], sized=False)
        elif Path(word).expanduser().exists() and word not in LISTS:
            try:
                some = [_own_weights(compose, word)]
            except (ValueError, OSError) as error:
                wrong.setdefault(" ".join(str(error).split()), []).append(word)
                continue
        elif not (some := _of_timm(word)):
            matching = names if word in LISTS else fnmatch.filter(names, word)
            if not matching:
                raise unknown_word(word, names)
            catalog = without_twins(_catalog(compose, matching, sized=word in ("small", "standard")))
            some = chosen_candidates([word], catalog, _is_here)[0]
        for one in some:
            if found.setdefault(one.name, one).overrides != one.overrides:  # two folders of one name
                found[f"{one.name}_{len(found)}"] = dataclasses.replace(one, name=f"{one.name}_{len(found)}")
    had, left_out = _that_can_be_had(list(found.values()), pretrained)
    runs = [one.name for one in had if one.checkpoint and (Path(one.checkpoint).parent / "metrics.json").is_file()]
    told = f"{', '.join(runs)}: trained by bbframe; on these very images, such a score says nothing" if runs else ""
    return FoundCandidates(had, {**wrong, **left_out}, [told] if told else [])


def _with_folders(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """The words, where a pattern that matches no backbone stands for the files and folders that it matches."""
    found: list[str] = []
    for word in words:
        pattern = any(letter in word for letter in "*?[") and not word.startswith(TIMM)
        places = sorted(glob.glob(str(Path(word).expanduser()))) if pattern and not fnmatch.filter(names, word) else []
        found += places or [word]
    return found


def _catalog(compose: Compose, names: Sequence[str], sized: bool = True) -> list[Candidate]:
    """The candidates of some choices; their parameters are counted, seconds for all, where lists need them."""
    from bbframe.app.catalog import line

    lines: list[dict[str, Any]] = []
    for name, options in every_choice(compose, "backbone", [name for name in names if name != "timm"]).items():
        if isinstance(options, ValueError):
            continue  # `bbframe list` says what is wrong with the file
        if sized:
            lines.append(line(name, options))
        else:
            known = {key: options.get(key) for key in ("model_type", "checkpoint", "timm_name")}
            lines.append({"backbone": name, "parameters": 0.0, **known})
    return from_catalog(lines)


def _is_here(one: Candidate) -> bool:
    return one.checkpoint is not None and are_weights_here(one.checkpoint)


def _that_can_be_had(found: Sequence[Candidate], pretrained: bool) -> tuple[list[Candidate], dict[str, list[str]]]:
    """Those whose weights are here or on a Hub that answers, which is asked once; the others by their reason."""
    if not pretrained:
        return list(found), {}
    had: list[Candidate] = []
    left_out: dict[str, list[str]] = {}
    silence: str | None = None
    for one in found:
        if one.checkpoint is None:
            left_out.setdefault("no weights are published", []).append(one.name)
        elif _is_here(one):
            had.append(one)
        else:
            if silence is None:
                silence = why_unreachable(one.checkpoint)
            if silence:
                left_out.setdefault(f"the Hub cannot be reached ({silence})", []).append(one.name)
            else:
                had.append(one)
    return had, left_out


def _own_weights(compose: Compose, word: str) -> Candidate:
    """The candidate of a folder or a file of weights, or of a run of bbframe. Raises ValueError for any other."""
    path = Path(word).expanduser()
    from bbframe.auto import backbone_class
    from bbframe.hub.checkpoint_files import Checkpoint
    from bbframe.hub.stated_config import stated_config

    if (path / "backbone" / "config.json").is_file():
        path = path / "backbone"  # of a run's folder
    files = Checkpoint(str(path))
    if files.config is None:
        raise ValueError(f"{word} holds no config.json beside its weights")
    data = files.config
    if "model_type" not in data:
        raise ValueError(f"backbones: {word}: its config.json names no model_type; timm's are written timm/<name>")
    backbone = backbone_class(str(data["model_type"]))
    config = stated_config(f"{word}: config.json", data, backbone).config({})
    overrides = (*_closest_choice(compose, config), f"backbone.checkpoint={quoted(path)}")
    name = path.parent.name if path.name == "backbone" else path.name
    return Candidate(name, overrides, config.model_type, None, str(path))


def _closest_choice(compose: Compose, config: BackboneConfigMixin) -> list[str]:
    """The overrides that make a config: the choice that is just so, else the architecture's own with its changes."""
    group, stated, keys = config.model_type.replace("-", "_"), config.to_dict(), config.field_names()
    names = [name for name in file_choices()["backbone"] if name.startswith(group)]
    found: dict[str, list[str]] = {}
    for name, options in every_choice(compose, "backbone", names).items():
        if isinstance(options, ValueError) or options.get("model_type") != config.model_type:
            continue
        base = type(config).from_dict({key: options[key] for key in keys if options.get(key) is not None}).to_dict()
        changed = [key for key in keys if stated[key] != base[key]]
        found[name] = [f"{'' if key in options else '+'}backbone.{key}={_in_grammar(stated[key])}" for key in changed]
    if not found:
        raise ValueError(f"backbones: there is no choice of the group backbone for {config.model_type}")
    name = min(found, key=lambda name: (len(found[name]) > 0, name != group, len(found[name])))
    return [f"backbone={name}", *found[name]]


def _in_grammar(value: Any) -> str:
    """Plain data as Hydra's grammar writes it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_in_grammar, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_in_grammar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and not value.isidentifier():
        return quoted(value)
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _of_timm(word: str) -> list[Candidate]:
    """The candidates of `timm/name` or of a pattern behind timm/; empty for any other word."""
    if not word.startswith(TIMM):
        return []
    import timm

    bare = word.removeprefix(TIMM)
    names = timm.list_models(bare, pretrained=True) if any(letter in bare for letter in "*?[") else [bare]
    if not names:
        raise ValueError(f"backbones: {word!r} matches no network of timm that has weights")
    if len(names) > MOST_OF_TIMM:
        raise ValueError(f"backbones: {word!r} matches {len(names)} networks of timm; {MOST_OF_TIMM} are the most")
    found = []
    for name in names:
        cfg = timm.get_pretrained_cfg(name)
        if cfg is None:
            raise ValueError(f"backbones: timm has no network {name!r}{nearest(name, timm.list_models())}")
        overrides = ("backbone=timm", f"backbone.name={quoted(name)}")
        found.append(Candidate(f"{TIMM}{name}", overrides, "timm_backbone", None, cfg.hf_hub_id, name))
    return found


def request_of(compose: Compose, base: Sequence[str], one: Candidate, pretrained: bool) -> RunRequest:
    """The run that a candidate would be, behind the user's own overrides. Raises ValueError in one line."""
    weights = f"backbone.pretrained={str(pretrained).lower()}"
    return RunRequest(compose, [*base, *one.overrides, weights]).with_text()
