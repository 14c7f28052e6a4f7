"""Hydra's own settings: this application's defaults, the little of them that a file may set, and parts without a file.

Files are data, whoever wrote them. Hydra's settings can import code, change the environment and write anywhere, so all
but a few come from the command line of the person who runs it. `check_settings` compares the settings that a whole
configuration composes to with those that the command line alone composes to: whatever a file did to change them, by a
key, a package, a defaults list or a file that hides one of Hydra's, shows as a difference.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.conf import HydraConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict

from bbframe import registry
from bbframe.app.command_line import key_of, names_hydra
from bbframe.app.places import CONF, RECIPES, file_choices
from bbframe.files import check_yaml
from bbframe.run.masking import mask_literals, mask_text

# what Hydra 1.3 wants to hear, and later ones do not
VERSION: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
RUN_FOLDER = "${output_dir}/${task.name}/${now:%Y-%m-%d_%H-%M-%S}_${bbframe.name:}"
SWEEP_FOLDER = "${output_dir}/${task.name}/${now:%Y-%m-%d_%H-%M-%S}_${bbframe.name:sweep}"
CHOICES = {"output": "bbframe", "sweeper": "bbframe", "hydra_logging": "none", "job_logging": "none"}
SWEEPER = "hydra_plugins.bbframe.BackboneSweeper"
# the options of a sweep, which bbframe.app.sweep_options explains
SWEEP_DEFAULTS: dict[str, Any] = {
    "params": None,
    "trials": None,
    "sampler": "tpe",
    "pruner": "none",
    "objectives": None,
    "jobs_per_device": None,
    "budget": None,
}

# what a composition fills in by itself
FILLED = {("runtime", "choices"), ("runtime", "config_sources"), ("overrides",), ("searchpath",)} | {
    ("job", key) for key in ("override_dirname", "config_name")
}
FOLDERS = {("run", "dir"), ("sweep", "dir"), ("sweep", "subdir"), ("output_subdir",)}
SWEPT = {(name,) for name in SWEEP_DEFAULTS}
MAY = "hydra.mode, hydra.sweeper's options, hydra.run.dir, hydra.sweep.dir, hydra.sweep.subdir and hydra.output_subdir"


class ExtraFolders(SearchPathPlugin):
    """The folders of `--config-dir` on Hydra's search path while we compose, where Hydra's own flag puts them."""

    folders: ClassVar[Sequence[Path]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in self.folders:
            search_path.append("command-line", f"file://{folder.resolve()}")


@cache
def register_settings() -> None:
    """Give Hydra this application's defaults, its sweeper and the recipes."""
    Plugins.instance().register(ExtraFolders)
    _check_files()
    set_resolver("bbframe.name", _run_name)
    set_resolver("bbframe.backbone", _backbone_name)
    store_config("hydra/sweeper", "bbframe", {"_target_": SWEEPER, "_recursive_": False, **SWEEP_DEFAULTS})
    sweep = {"dir": SWEEP_FOLDER, "subdir": "${hydra.job.num}_${bbframe.backbone:}"}
    store_config("hydra/output", "bbframe", {"run": {"dir": RUN_FOLDER}, "sweep": sweep}, package="hydra")
    settings = HydraConf(output_subdir=None)  # the run folder holds its own record
    settings.defaults = [{k: CHOICES.get(k, v) for k, v in default.items()} for default in settings.defaults]
    store_config("hydra", "config", settings)
    for recipe in sorted(RECIPES.glob("*.yaml")):
        header = re.search(r"^#\s*@package\s+(\S+)", recipe.read_text(encoding="utf-8"), re.MULTILINE)
        package = header[1] if header else None
        store_config("recipes", recipe.stem, OmegaConf.load(recipe), package)


def _check_files() -> None:
    """Let Hydra read a file only after `check_yaml` has looked at it."""
    sources: Any = Plugins.instance().discover(ConfigSource)
    source = next(cls for cls in sources if cls.scheme() == "file")
    load = source.load_config

    def load_config(self: ConfigSource, config_path: str) -> ConfigResult:
        check_yaml(Path(self.path, self._normalize_file_name(config_path)))
        return load(self, config_path)

    source.load_config = load_config


def store_config(group: str, name: str, node: Any, package: str | None = None) -> None:
    """Give Hydra a choice of a group that is no file, in the place of one of that name; Hydra 1.4 warns of two."""
    store = ConfigStore.instance()
    store.repo.get(group, {}).pop(f"{name}.yaml", None)
    store.store(name, node, group=group, package=package, provider="bbframe")


def set_resolver(name: str, resolver: Callable[..., Any]) -> None:
    """Make `${name:...}` what a function returns. The method's name changed in OmegaConf 2.4."""
    new = "replace" in inspect.signature(OmegaConf.register_resolver).parameters
    add: Any = OmegaConf.register_resolver if new else OmegaConf.register_new_resolver
    add(name, resolver, replace=True)


def _run_name(default: str | None = None, *, _root_: DictConfig) -> str:
    return re.sub(r"[^\w.+=-]+", "-", mask_text(str(_root_.get("name") or default or _backbone_name(_root_=_root_))))


def _backbone_name(*, _root_: DictConfig) -> str:
    """What tables call the backbone, as `Configuration.backbone_name` says it."""
    backbone = _root_.get("backbone")
    backbone = backbone if OmegaConf.is_dict(backbone) else {}
    timm = backbone.get("name") if backbone.get("model_type") == "timm" else None
    choice = _root_.hydra.runtime.choices.get("backbone")
    name = timm or _root_.get("backbone_name") or choice or backbone.get("model_type")
    return str(name).rpartition("/")[2]


def setting_names() -> list[str]:
    """The names of Hydra's settings and of the sweep's options, such as hydra.run.dir and hydra.sweeper.trials."""
    settings: Any = OmegaConf.to_container(OmegaConf.structured(HydraConf), resolve=False)
    own = [f"hydra.sweeper.{name}" for name in SWEEP_DEFAULTS]
    return own + [".".join(("hydra", *path)) for path, _ in _leaves(settings)]


# parts of plugins


def register_parts(folders: Sequence[Path]) -> None:
    """Let the parts of plugins be chosen like files, with their options' defaults, where no file has the name."""
    for part in _group_parts():
        if not any((folder / part.kind / f"{part.name}.yaml").is_file() for folder in (CONF, *folders)):
            options = _part_defaults(part)  # of loggers there may be several, so each has a key of its own
            store_config(part.kind, part.name, {part.name: options} if part.kind == "logger" else options)


def _group_parts() -> list[registry.Part]:
    """The parts of plugins whose kind is a config group."""
    registry.names("backbone")  # loads the entry points
    return [part for part in registry.from_plugins() if (CONF / part.kind).is_dir()]


def choices(extra: Path | None = None) -> dict[str, list[str]]:
    """The config groups and what each offers; `extra` is a folder with more of them."""
    found = file_choices(extra)
    for part in _group_parts():
        found[part.kind] = sorted({*found[part.kind], part.name})
    return found


def _part_defaults(part: registry.Part) -> dict[str, Any]:
    """The options of a part as its file would give them; ??? stands for what has no default."""
    classes = [part.options]
    if part.kind == "backbone":
        from bbframe.factory import Source

        classes.append(Source)
    defaults: dict[str, Any] = {"model_type" if part.kind == "backbone" else "name": part.name}
    for field in (field for cls in classes for field in dataclasses.fields(cls) if field.init):
        value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        defaults.setdefault(field.name, "???" if value is dataclasses.MISSING else value)
    return defaults


# files are data


def check_primary(file: Path) -> None:
    """Refuse a primary file whose settings act while Hydra still composes: the search path, aliases and the like.

    Raises ValueError in one line.
    """
    if file.is_file():
        check_yaml(file)
    data = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}
    node = data.get("hydra") if isinstance(data, dict) else None
    for path, _ in _leaves(node or {}):
        if not _may_differ(path):
            raise ValueError(_refusal(str(file), path))


def check_settings(config: DictConfig, alone: DictConfig, given: Sequence[str]) -> None:
    """Refuse a composition in which a file changed one of Hydra's settings that it may not change.

    `alone` is what the command line composes to without any file, and `given` the user's overrides. Raises ValueError
    in one line.
    """
    recipe = config.hydra.runtime.choices.get("recipes")
    where = f"recipes={recipe}" if recipe else "configuration"
    composed, base = (dict(_leaves(OmegaConf.to_container(c.hydra, resolve=False))) for c in (config, alone))
    for path in sorted(composed.keys() | base.keys(), key=str):
        filled = any(path[: len(known)] == known for known in FILLED)
        if not filled and composed.get(path) != base.get(path, ...) and not _may_differ(path):
            raise ValueError(_refusal(where, path))
    recorded: Any = OmegaConf.to_container(config.hydra.overrides, resolve=False)
    for line in [*recorded["hydra"], *recorded["task"]]:
        if line not in given:
            raise ValueError(_refusal(where, ("overrides",)))
    check_params((config.hydra.sweeper or {}).get("params") or {}, where)
    if not any(key_of(override) == "output_dir" for override in given):
        _check_output(config, where)
    changed = {path for path in FOLDERS if composed.get(path) != base.get(path)}
    _check_folders(config, changed, where)


def check_params(params: Mapping[Any, Any], where: str) -> None:
    """Refuse sweep parameters that are more than values of a run's options. Raises ValueError in one line."""
    for key, value in params.items():
        text = str(key)
        named = names_hydra(text) or key_of(text) == "output_dir"
        if named or not re.fullmatch(r"[+~]{0,2}[A-Za-z][\w./@:-]*", text):
            raise ValueError(f"{where}: hydra.sweeper.params may not hold {text!r}; it sweeps options of a run alone")
        if OmegaConf.is_dict(value):
            raise ValueError(f"{where}: hydra.sweeper.params.{text} must be values such as 1,2, not a mapping")


def _check_output(config: DictConfig, where: str) -> None:
    """An output_dir that nobody typed must lead below the current folder, or be the one of conf/config.yaml."""
    text, here = str(config.get("output_dir")), os.getcwd()
    below = Path(here) in Path(os.path.normpath(os.path.join(here, os.path.expanduser(text)))).parents
    if not below and text != str(OmegaConf.select(OmegaConf.load(CONF / "config.yaml"), "output_dir")):
        raise ValueError(
            f"{where}: output_dir={text} leads out of the current folder, and a file may not say so; "
            f"if you want it, type output_dir={text} yourself"
        )


def _check_folders(config: DictConfig, changed: set[tuple[str, ...]], where: str) -> None:
    """What a file says about folders must lead below output_dir; the sweeper looks at `sweep.subdir`, job by job."""
    for path in changed - {("sweep", "subdir")}:
        key = ".".join(("hydra", *path))
        if path == ("output_subdir",):
            text = str(OmegaConf.to_container(config.hydra, resolve=False)["output_subdir"])  # type: ignore
            below = "${" not in text and not Path(text).is_absolute() and ".." not in re.split(r"[/\\]", text)
        else:
            below = Path(str(config.get("output_dir"))).resolve() in Path(settled(config, {}, key)).resolve().parents
        if not below:
            raise ValueError(f"{where}: {key} must lead below output_dir; type another on the command line: {key}=...")


def _may_differ(path: tuple[str, ...]) -> bool:
    return path == ("mode",) or path in FOLDERS or (path[0] == "sweeper" and path[1:2] in SWEPT)


def _refusal(where: str, path: tuple[str, ...]) -> str:
    key = ".".join(("hydra", *path))
    return (
        f"{where}: a file may not set {key}, because Hydra's settings can run code; it may set {MAY}. "
        f"If you want it, type {key}=... yourself"
    )


def _leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _leaves(value, (*path, str(key)))
    elif not isinstance(node, Mapping):
        yield path, node


def settled(config: DictConfig, data: Mapping[str, Any], key: str, number: int | None = None) -> str:
    """A setting such as "hydra.run.dir" with its interpolations resolved, where `data` is the job's final
    configuration and `number` its place in a sweep."""
    whole = OmegaConf.create({**OmegaConf.to_container(config, resolve=False), **data})  # type: ignore[dict-item]
    OmegaConf.copy_cache(config, whole)  # the same moment for every ${now:...}
    if number is not None:
        with open_dict(whole):
            whole.hydra.job.update(num=number, id=str(number))
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = whole  # type: ignore[assignment]
    try:
        return mask_literals(str(OmegaConf.select(whole, key, throw_on_missing=True)))
    finally:
        HydraConfig.instance().cfg = before
