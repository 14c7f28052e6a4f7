"""`resume=<sweep>`: the command of an earlier sweep again, in its folder."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from omegaconf import DictConfig

from bbframe import registry
from bbframe.app.command_line import key_of, names_hydra, parsed_value, quoted
from bbframe.app.places import CONF
from bbframe.sweep.sweep_record import RECORD, read_sweep

KEY = "resume"
OWN = tuple(f"hydra.sweeper.{name}" for name in ("trials", "sampler", "pruner", "objectives", "jobs_per_device"))

log = logging.getLogger("bbframe")


def resumed(command: argparse.Namespace) -> None:
    """Make a command with `resume=<sweep>` the sweep's own one; what it gives beside replaces what the sweep had.

    Raises ValueError in one line when the folder holds no sweep, or a record that may not be followed.
    """
    given = [override for override in command.overrides if key_of(override) == KEY]
    if not given:
        return
    parsed, text = parsed_value(given[-1]), given[-1].partition("=")[2]
    folder = Path(value if parsed and isinstance(value := parsed.value(), str) else text).expanduser()
    record = read_sweep(folder)
    if not text.strip("'\""):
        raise ValueError("resume= names no folder; give the one of a sweep: resume=outputs/classification/<sweep>")
    if not folder.is_dir():
        what = f"ckpt_path={folder}" if folder.is_file() else "ckpt_path=<run folder>"
        raise ValueError(f"resume={folder}: give the folder of a sweep; one run goes on by {what}")
    if record is None:
        if (folder / "config.yaml").is_file():
            raise ValueError(f"resume={folder} is one run; go on with it by ckpt_path={folder}")
        inside = sorted(file.parent.name for file in folder.glob(f"*/{RECORD}"))
        hint = f"; sweeps in it: {', '.join(inside[-5:])}" if inside else ""
        raise ValueError(f"resume={folder}: holds no sweep, which has a {RECORD}{hint}")
    for line in record.overrides:
        if names_hydra(line) and key_of(line) not in OWN:
            raise ValueError(
                f"{folder}: its record sets {key_of(line)}, which only your own command line may: {key_of(line)}=..."
            )
    others = [override for override in command.overrides if key_of(override) != KEY]
    again = {key_of(override) for override in others}
    kept = [line for line in record.overrides if key_of(line) not in again]
    if hidden := next((line for line in kept if "***" in line), None):
        raise ValueError(f"{folder}: {key_of(hidden)} was masked in the record; give it again: {key_of(hidden)}=...")
    _check_plugins(folder, record.plugins)
    _check_flags(folder, record.flags, command)
    place = [] if "hydra.sweep.dir" in again else [f"hydra.sweep.dir={quoted(folder)}"]
    command.overrides = [*kept, *place, *others]
    command.multirun = True


def configuration_flags(config: DictConfig) -> dict[str, str]:
    """The flags of the command line that say where a sweep's configuration is, from Hydra's settings."""
    sources = {source.provider: source.path for source in config.hydra.runtime.config_sources}
    places = {"config-dir": sources.get("command-line"), "config-path": sources.get("main")}
    flags = {name: os.path.relpath(place) for name, place in places.items() if place and Path(place) != CONF}
    if config.hydra.job.config_name != "config":
        flags["config-name"] = str(config.hydra.job.config_name)
    return flags


def _check_flags(folder: Path, recorded: dict[str, str], command: argparse.Namespace) -> None:
    for name, value in recorded.items():
        given = getattr(command, name.replace("-", "_"), None)
        same = given is not None and (str(given) == value or Path(given).absolute() == Path(value).absolute())
        if name in ("config-dir", "config-path", "config-name") and not same:
            raise ValueError(f"{folder}: its sweep was given --{name} {value}; give it again: --{name} {value}")


def _check_plugins(folder: Path, recorded: list[dict[str, object]]) -> None:
    loaded = {plugin.module: plugin for plugin in registry.plugins()}
    for plugin in recorded:
        module = str(plugin.get("module"))
        if module not in loaded:
            raise ValueError(f"{folder}: its sweep used the plugin {module!r}; give it again: --plugin {module}")
        if plugin.get("sha256") != loaded[module].sha256:
            log.warning("the plugin %s is another file than the sweep in %s used", module, folder)
