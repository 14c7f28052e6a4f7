"""A run as overrides ask for it, with the record of an earlier run when they name one."""

from __future__ import annotations

import itertools
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from bbframe import registry
from bbframe.app.combinations import expand, with_ends
from bbframe.app.command_line import key_of, names_hydra, parsed_value
from bbframe.app.composition import Compose, composed, plain_data, resolved

SOURCES = ("rerun", "ckpt_path")  # a run folder or a checkpoint; each brings its recorded configuration

OWN_KEYS = ("rerun", "output_dir")  # of the run that is started, never of a record: a stranger may have written it

AUTOMATIC = ("optim.lr", "data.batch_size")  # typed again as `auto`, they are sought again

LAST = "last"  # as `ckpt_path`: from the last checkpoint in the folder of the run itself

MOST_TRIED = 100  # jobs of a sweep, for one that composes

log = logging.getLogger("bbframe")


class RunRequest:
    """The run that some overrides ask for.

    `rerun` and `ckpt_path` bring a record. Its overrides come before the given ones, less those that are given again,
    and together they are `overrides`; `for_sweeper` are the same as Hydra can compose them before its sweeper does.
    `config` is what they compose to with Hydra's settings, without those that name several values, which are `swept`,
    where that is possible. `goes_on` says that an earlier start of the same run may have left a checkpoint. Raises
    ValueError in one line.
    """

    def __init__(self, compose: Compose, given: list[str]) -> None:
        self.compose, self.given = compose, [override for override in given if not _means_last(override)]
        self.goes_on = self.given != given
        given = self.given
        self.source = _stated_source(given)
        if self.source is None:
            self._compose_behind([])
            files_say = (OmegaConf.select(self.config, key, throw_on_resolution_failure=False) for key in SOURCES)
            self.source = next(filter(None, files_say), None)
        if self.source is not None:
            self.recorded, self.before = _read_checked(Path(self.source).expanduser())
            self._compose_behind(self.before)

    def _compose_behind(self, recorded: list[str]) -> None:
        keys = {key_of(override) for override in self.given}
        kept = [o for o in recorded if not any(key_of(o) == key or key_of(o).startswith(f"{key}.") for key in keys)]
        self.overrides = [*kept, *self.given]
        self.swept = [override for override in self.overrides if is_swept(override)]
        self.for_sweeper = self.overrides
        single = [override for override in self.overrides if override not in self.swept]
        try:
            self.config = composed(self.compose, single)
        except ValueError:
            if not self.swept:
                raise
            self.config = self._first_composed(single)
            groups = {key_of(override) for override in self.swept}
            self.for_sweeper = [_as_choice(override, groups) for override in self.overrides]

    def _first_composed(self, single: list[str]) -> DictConfig:
        """The first job of a sweep that composes: a value may fit only what is swept, as a window's size of Swin.

        Raises the ValueError of the first job where none composes.
        """
        errors: list[ValueError] = []
        for combination in itertools.islice(
            expand(with_ends(self.swept), GlobalHydra.instance().config_loader()), MOST_TRIED
        ):
            try:
                return composed(self.compose, [*single, *combination])
            except ValueError as error:
                errors.append(error)
        raise errors[0]

    @cached_property
    def data(self) -> dict[str, Any]:
        """The plain data: the record, in which what the given overrides change, and nothing else, is changed."""
        config = composed(self.compose, self.overrides) if self.swept else self.config  # says that -m is missing
        after = resolved(self.compose, self.overrides, config)
        if self.source is None:
            return after
        from bbframe.run.masking import masked_keys

        before = plain_data(self.compose, self.before)
        data = {**_changed_keys(self.recorded, before, after), **{key: after.get(key) for key in OWN_KEYS}}
        for group, option in (key.split(".") for key in AUTOMATIC if f"{key}=auto" in self.given):
            data[group] = {**data[group], option: after[group][option]}
        if hidden := masked_keys(data):
            raise ValueError(f"{self.source}: {hidden[0]} was masked in the record; give it again: {hidden[0]}=...")
        return data

    @property
    def record(self) -> list[str]:
        """The overrides that a record of this run holds."""
        return [override for override in self.overrides if not names_hydra(override) and key_of(override) != "rerun"]

    def with_text(self) -> RunRequest:
        """The same run, whose options of text have text where Hydra's grammar reads a number."""
        from bbframe.app.text_options import as_text  # imports torch

        typed = as_text(self.config, self.given)
        if typed == self.given:
            return self
        request = RunRequest(self.compose, typed)
        request.goes_on = self.goes_on
        return request


def _as_choice(override: str, groups: set[str]) -> str:
    """An option of a swept group as a list of one value, which Hydra leaves to the jobs; all others as they are."""
    key, equals, value = override.partition("=")
    below = key_of(override).partition(".")[0] in groups and "." in key and not key.startswith("~")
    return f"{key}=choice({value})" if below and equals and not is_swept(override) else override


def is_swept(override: str) -> bool:
    """Whether an override names several values."""
    parsed = parsed_value(override)
    return parsed is not None and parsed.is_sweep_override()


def _means_last(override: str) -> bool:
    """Whether an override is `ckpt_path=last`, which names no record."""
    return key_of(override) == "ckpt_path" and override.partition("=")[2].strip("'\"") == LAST


def _stated_source(overrides: list[str]) -> str | None:
    """The record that the overrides themselves name."""
    parsed = {key_of(override): parsed_value(override) for override in overrides if key_of(override) in SOURCES}
    stated = [parsed[key] for key in SOURCES if parsed.get(key) is not None]
    values = [str(one.value()) for one in stated if one.value() and not one.is_sweep_override()]
    return next((value for value in values if "${" not in value), None)


def _read_checked(source: Path) -> tuple[dict[str, Any], list[str]]:
    """The configuration and the overrides of a record, which sets nothing of Hydra's and whose plugins are loaded."""
    from bbframe.run.record import read_plugins, read_record  # imports torch

    config, overrides = read_record(source)
    if foreign := [override for override in overrides if names_hydra(override)]:
        key = key_of(foreign[0])
        raise ValueError(f"{source}: its record sets {key}, which only your own command line may: {key}=...")
    loaded = {plugin.module: plugin for plugin in registry.plugins()}
    for plugin in read_plugins(source):
        module = plugin["module"]
        if module not in loaded:
            raise ValueError(f"{source}: its run used the plugin {module!r}; give it again: --plugin {module}")
        if plugin["sha256"] != loaded[module].sha256:
            log.warning("the plugin %s is another file than the run in %s used", module, source)
    return config, [override for override in overrides if key_of(override) not in OWN_KEYS]


def changed(record: Any, before: Any, after: Any) -> Any:
    """`record` with every difference between `before` and `after` applied; another choice of a group replaces it."""
    if before == after:
        return record
    if not all(isinstance(x, dict) for x in (record, before, after)):
        return after
    if any(before.get(kind) != after.get(kind) for kind in ("name", "model_type")):
        return after
    return _changed_keys(record, before, after)


def _changed_keys(record: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in record.items() if key in after or key not in before}
    different = [key for key in after if key in record or after[key] != before.get(key)]
    return {**kept, **{key: changed(record.get(key), before.get(key), after[key]) for key in different}}
