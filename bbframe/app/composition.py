"""From overrides to plain data by Hydra's composition, and its errors in one line: what, where, the nearest fix."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bbframe.app.command_line import expand_home, key_of, quoted
from bbframe.app.composition_errors import LAUNCHERS, explained
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
from bbframe.run.masking import is_secret, remember
from bbframe.schema import nearest

Compose = Callable[[list[str]], DictConfig]
# ValueErrors of OmegaConf's, about a place in a list, and of Hydra's, about group=null
FOREIGN = ("invalid literal for int()", "Config group override must be")
ERRORS = (HydraException, OmegaConfBaseException, YAMLError, RecursionError)


@contextmanager
def composition(
    config_dir: Path | None = None,
    *,
    config_name: str = "config",
    config_path: Path | None = None,
    search_path: Sequence[str] = (),
) -> Iterator[Compose]:
    """A function that composes the configuration, Hydra's settings included, for some overrides.

    `config_dir` is a folder of the user's own groups, `config_path` one that replaces conf/, `config_name` the primary
    file, and `search_path` what `hydra.searchpath` names. The function raises ValueError for what a file may not set.
    """
    own_groups = [config_dir] if config_dir else []
    register_everything(own_groups)
    folders = [Path(place.removeprefix("file://")) for place in search_path if not place.startswith("pkg://")]
    for folder in filter(None, (config_path, config_dir, *folders)):
        check_primary(folder / f"{config_name}.yaml")
    places = f"hydra.searchpath=[{','.join(map(quoted, search_path))}]"  # a file's own search path never counts

    def compose(overrides: list[str]) -> DictConfig:
        config = hydra.compose(config_name, [*overrides, places], return_hydra_config=True)
        check_settings(config, settings_alone(overrides), [*overrides, places])
        return config

    with _initialized(config_path or CONF, own_groups):
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
    given = (o for o in overrides if key_of(o).startswith(("hydra.", "hydra/")) and key_of(o) != "hydra.searchpath")
    return _settings(tuple(given), os.getcwd())


@lru_cache
def _settings(given: tuple[str, ...], here: str) -> DictConfig:
    """The same for all compositions in a folder, which is one of the settings; each takes as long as a composition."""
    with _initialized(CONF):
        try:
            return hydra.compose(None, [*given], return_hydra_config=True)
        except HydraException as error:
            lost = re.search(r"Could not (?:find|load) '(hydra/[^']+)/([^/']+)'", str(error))
            if lost and not (lost[1] == "hydra/launcher" and lost[2] in LAUNCHERS):
                known = getattr(error, "options", None) or ()
                raise ValueError(
                    f"{lost[1]}={lost[2]}: Hydra's settings come from its plugins and the command line, never from a "
                    f"file of yours{nearest(lost[2], known)}"
                ) from error
            raise


def _environment_variable(key: str, *default: Any) -> Any:
    """OmegaConf's `oc.env`, which also takes note of what is secret, so that no record shows it."""
    if key not in os.environ:
        if not default:
            raise ValueError(f"the configuration reads the environment variable {key}, which is not set")
        return default[0]
    if is_secret(key):
        remember([os.environ[key]])
    return os.environ[key]


@contextmanager
def _explaining(compose: Compose, overrides: list[str]) -> Iterator[None]:
    """Make every error of Hydra's a ValueError of one line."""
    try:
        yield
    except (*ERRORS, ValueError) as error:
        if not isinstance(error, ERRORS) and not any(text in str(error) for text in FOREIGN):
            raise  # our own errors are one line already
        raise ValueError(explained(partial(plain_data, compose), overrides, error)) from error


def composed(compose: Compose, overrides: list[str]) -> DictConfig:
    """What some overrides compose to, Hydra's settings included; errors are ValueErrors of one line."""
    with _explaining(compose, overrides):
        return compose(overrides)


def resolved(compose: Compose, overrides: list[str], config: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain data without Hydra's settings, `~` expanded."""
    with _explaining(compose, overrides):
        ours = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        data: dict[str, Any] = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)  # type: ignore
    if data.get("backbone_name") is None:
        data["backbone_name"] = config.hydra.runtime.choices.get("backbone")
    return expand_home(data)


def plain_data(compose: Compose, overrides: list[str]) -> dict[str, Any]:
    """The plain data that some overrides compose to; errors are ValueErrors of one line."""
    return resolved(compose, overrides, composed(compose, overrides))


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
