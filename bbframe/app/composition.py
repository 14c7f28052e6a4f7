"""From overrides to plain data by Hydra's composition, and its errors in one line: what, where, the nearest fix."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bbframe.app.command_line import expand_home, key_of, names_hydra, parsed_value, quoted
from bbframe.app.composition_errors import explained, unreadable
from bbframe.app.hydra_settings import (
    VERSION,
    ExtraFolders,
    check_primary,
    check_settings,
    register_parts,
    register_settings,
    set_resolver,
)
from bbframe.app.places import CONF
from bbframe.schema import nearest

Compose = Callable[[list[str]], DictConfig]
ERRORS = (HydraException, OmegaConfBaseException, YAMLError, RecursionError)
# extras that bring launchers
LAUNCHERS = {"joblib": "bbframe[joblib]", "submitit_local": "bbframe[submitit]", "submitit_slurm": "bbframe[submitit]"}

_secrets: set[str] = set()  # values of environment variables that are called a token, a key or the like


def secrets() -> frozenset[str]:
    """The secret values that configurations have read from the environment so far."""
    return frozenset(_secrets)


@contextmanager
def composition(
    extra: Path | None = None, *, config_name: str = "config", config_path: Path | None = None
) -> Iterator[Compose]:
    """A function that composes the configuration, Hydra's settings included, for some overrides.

    `extra` is a folder of the user's own groups, `config_path` one that replaces conf/, and `config_name` the primary
    file. The function raises ValueError for what a file may not set.
    """
    register_everything([extra] if extra else [])
    for folder in filter(None, (config_path, extra)):
        check_primary(folder / f"{config_name}.yaml")

    def compose(overrides: list[str]) -> DictConfig:
        path, rest = search_path(overrides)
        for place in (Path(place.removeprefix("file://")) for place in path if not place.startswith("pkg://")):
            check_primary(place / f"{config_name}.yaml")
        places = f"hydra.searchpath=[{','.join(map(quoted, path))}]"  # a file's own search path never counts
        config = hydra.compose(config_name, [*rest, places], return_hydra_config=True)
        check_settings(config, settings_alone(overrides), [*overrides, places])
        return config

    with _initialized(config_path or CONF, [extra] if extra else []):
        yield compose


@contextmanager
def _initialized(folder: Path, extra: Sequence[Path] = ()) -> Iterator[None]:
    """Hydra's composition over a folder, whatever it was over before and is again behind it."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    ExtraFolders.folders = list(extra)
    try:
        with hydra.initialize_config_dir(str(folder), job_name="train", **VERSION):
            yield
    finally:
        ExtraFolders.folders = []
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)


def register_everything(folders: Sequence[Path]) -> None:
    """Give Hydra our settings, the plugins' parts and the resolver that takes note of secrets."""
    register_settings()
    register_parts(folders)
    set_resolver("oc.env", _environment_variable)


def settings_alone(overrides: Sequence[str]) -> DictConfig:
    """Hydra's settings as the command line alone sets them, no file read but Hydra's own."""
    given = [o for o in overrides if key_of(o).startswith(("hydra.", "hydra/")) and key_of(o) != "hydra.searchpath"]
    with _initialized(CONF):
        try:
            return hydra.compose(None, given, return_hydra_config=True)
        except HydraException as error:
            lost = re.search(r"Could not (?:find|load) '(hydra/[^']+)/([^/']+)'", str(error))
            if lost and not (lost[1] == "hydra/launcher" and lost[2] in LAUNCHERS):
                known = getattr(error, "options", None) or ()
                raise ValueError(
                    f"{lost[1]}={lost[2]}: Hydra's settings come from its plugins and the command line, never from a "
                    f"file of yours{nearest(lost[2], known)}"
                ) from error
            raise


def search_path(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The places that `hydra.searchpath=[...]` names, and the other overrides."""
    path: list[str] = []
    for override in overrides:
        if key_of(override) == "hydra.searchpath" and (parsed := parsed_value(override)) is not None:
            value: Any = parsed.value()
            if not isinstance(value, list) or not value:
                raise ValueError(f"{override}: must be a list of places, such as hydra.searchpath=[file:///my/conf]")
            texts = [str(place) for place in value]
            path += [text if "://" in text else f"file://{Path(text).expanduser().absolute()}" for text in texts]
    return path, [override for override in overrides if key_of(override) != "hydra.searchpath"]


def _environment_variable(key: str, *default: Any) -> Any:
    """OmegaConf's `oc.env`, which also takes note of what is secret, so that no record shows it."""
    from bbframe.run.masking import is_secret

    if key not in os.environ:
        if not default:
            raise ValueError(f"the configuration reads the environment variable {key}, which is not set")
        return default[0]
    if is_secret(key):
        _secrets.add(os.environ[key])
    return os.environ[key]


def composed(compose: Compose, overrides: list[str]) -> DictConfig:
    """Compose, with every error of Hydra's as a ValueError of one line."""
    try:
        return compose(overrides)
    except ERRORS as error:
        raise ValueError(explained(partial(plain_data, compose), overrides, error)) from error


def plain_data(compose: Compose, overrides: list[str]) -> dict[str, Any]:
    """The plain data that some overrides compose to; errors are ValueErrors of one line."""
    return resolved(compose, overrides, composed(compose, overrides))


def resolved(compose: Compose, overrides: list[str], config: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain data without Hydra's settings, `~` expanded."""
    try:
        ours = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        data: dict[str, Any] = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)  # type: ignore
    except ERRORS as error:
        raise ValueError(explained(partial(plain_data, compose), overrides, error)) from error
    if data.get("backbone_name") is None:
        data["backbone_name"] = config.hydra.runtime.choices.get("backbone")
    expanded: dict[str, Any] = expand_home(data)
    return expanded


def every_choice(compose: Compose, group: str, names: Sequence[str]) -> dict[str, Any]:
    """What each of a group's files composes to, or the ValueError that says what is wrong with it.

    All are composed at once, many times quicker than one by one; those that do not compose are found by halving.
    """
    if len(names) < 2:
        try:
            return {name: plain_data(compose, [f"{group}={quoted(name)}"])[group] for name in names}
        except ValueError as error:
            return {names[0]: error}
    packages = [f"+{group}@every_choice.n{i}={quoted(name)}" for i, name in enumerate(names)]
    try:
        return dict(zip(names, plain_data(compose, packages)["every_choice"].values(), strict=True))
    except ValueError:
        half = len(names) // 2
        return {**every_choice(compose, group, names[:half]), **every_choice(compose, group, names[half:])}


# a record of an earlier run


def configuration(compose: Compose, overrides: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The plain data that some overrides compose to, and the overrides in full.

    `rerun` and `ckpt_path` bring a recorded configuration, of a run folder or inside a checkpoint. What the given
    overrides change, and nothing else, is changed in it.
    """
    return with_record(compose, overrides, None)


def with_record(compose: Compose, overrides: list[str], config: DictConfig | None) -> tuple[dict[str, Any], list[str]]:
    """`configuration`, where `config` is what the overrides compose to, if that is known."""
    data = resolved(compose, overrides, config if config is not None else composed(compose, overrides))
    overrides = [o for o in overrides if not names_hydra(o)]
    source = next((data[key] for key in ("rerun", "ckpt_path") if data.get(key)), None)
    if source is None:
        return data, overrides
    from bbframe.app.recorded_plugins import check_recorded_plugins
    from bbframe.run.masking import masked_keys
    from bbframe.run.record import read_record

    recorded, old = read_record(Path(source))
    if foreign := [o for o in old if names_hydra(o)]:
        key = key_of(foreign[0])
        raise ValueError(f"{source}: its record sets {key}, which only your own command line may: {key}=...")
    check_recorded_plugins(Path(source))
    new = [o for o in overrides if key_of(o) != "rerun"]
    config_data = recorded
    if new:
        replaced = {key_of(o) for o in new}
        kept = [o for o in old if not any(key_of(o) == k or key_of(o).startswith(f"{k}.") for k in replaced)]
        before, after = plain_data(compose, old), plain_data(compose, [*kept, *new])
        config_data = {key: changed(recorded.get(key), before.get(key), after[key]) for key in after}
        old = kept
    config_data["rerun"] = data.get("rerun")
    if hidden := masked_keys(config_data):
        raise ValueError(f"{source}: {hidden[0]} was masked in the record; give it again: {hidden[0]}=...")
    return config_data, [*old, *new]


def changed(record: Any, before: Any, after: Any) -> Any:
    """`record` with every difference between `before` and `after` applied; another choice of a group replaces it."""
    if before == after:
        return record
    if not all(isinstance(x, dict) for x in (record, before, after)):
        return after
    if any(before.get(kind) != after.get(kind) for kind in ("name", "model_type")):
        return after
    merged = {key: changed(record.get(key), before.get(key), after[key]) for key in after}
    return {**record, **merged}


# several values


def expand(overrides: Sequence[str], loader: Any = None) -> list[list[str]]:
    """Every combination of the values that the overrides list; `a=1,2` has two, `a=[1,2]` is one.

    `loader` finds what glob(...) matches. Raises ValueError for an interval, which has no list of values.
    """
    try:
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ValueError(unreadable(error)) from error
    axes = []
    for override in parsed:
        line = override.input_line or ""
        if override.is_interval_sweep():
            raise ValueError(
                f"{line}: an interval is for a search, and this sweep runs every value; list them, such as "
                f"{override.get_key_element()}=0.001,0.01 or range(1,4)"
            )
        if override.is_sweep_override():
            values = list(override.sweep_string_iterator())
            if not values:
                raise ValueError(f"{line} matches nothing{nearest(line, [])}")
            axes.append([f"{override.get_key_element()}={value}" for value in values])
        else:
            axes.append([line])
    return [list(combination) for combination in itertools.product(*axes)]


def is_swept(override: str) -> bool:
    """Whether an override names several values."""
    parsed = parsed_value(override)
    return parsed is not None and parsed.is_sweep_override()


def loaded(loader: Any, config_name: str, hydra_overrides: Sequence[str]) -> Compose:
    """The function that `composition` gives, over the config loader of the application that runs."""

    def compose(overrides: list[str]) -> DictConfig:
        given = [*hydra_overrides, *overrides]
        config: DictConfig = loader.load_configuration(config_name, given, run_mode=RunMode.RUN, from_shell=False)
        check_settings(config, settings_alone(given), given)
        return config

    return compose
