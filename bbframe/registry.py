"""Every part that a configuration names: its kind, its name, its typed options, and the class behind it.

Our own parts and a user's are registered alike. A user's part is a class below `@register(kind, name, options)` in a
module that the person who runs a command names (`--plugin my_package.parts`), or that an installed package offers by
an entry point in the group `bbframe.parts`. A configuration chooses a part by its name alone: it never names code.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, overload

from bbframe.schema import nearest

KINDS = tuple("backbone task head loss metric data transform optim schedule callback logger".split())
ENTRY_POINTS = ("bbframe.parts", "bbframe.backbones")  # the second is the older group, of backbones alone

C = TypeVar("C", bound=type)


@dataclass(frozen=True)
class Part:
    """A named part: `options` is the dataclass of its options, `home` the class or "module:Class", imported when
    it is asked for, and `plugin` the user's module that brought it (None: bbframe itself)."""

    kind: str
    name: str
    options: type
    home: type | str
    plugin: str | None = None

    def load(self) -> Any:
        """The class of this part."""
        if not isinstance(self.home, str):
            return self.home
        module, _, name = self.home.partition(":")
        return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class Plugin:
    """A user's module of parts, as a record names it: its package's version and its file's SHA-256, where known."""

    module: str
    version: str | None
    sha256: str | None


_parts: dict[tuple[str, str], Part] = {}
_modules: dict[tuple[str, str], str] = {}  # of the parts that register themselves when their module is imported
_plugins: dict[str, Plugin] = {}
_loading: list[str] = []  # the plugins that are being imported, the innermost last


@overload
def register(kind: C) -> C: ...
@overload
def register(kind: str, name: str, options: type) -> Callable[[C], C]: ...
def register(kind: Any, name: str = "", options: type | None = None) -> Any:
    """Make a class known as a part of a kind, under a name, with the dataclass of its options; a decorator.

    `@register` alone, above a backbone, takes the name and the options from its `config_class`. Raises ValueError for
    an unknown kind, options that are no dataclass, and a name that another class has.
    """
    if isinstance(kind, type):
        config: Any = kind.config_class  # type: ignore[attr-defined]
        return register("backbone", backbone_name(config.model_type), config)(kind)
    if options is None:
        raise ValueError(f"register({kind!r}, {name!r}): give the dataclass of its options as the third argument")

    def add(cls: C) -> C:
        _add(Part(kind, name, options, cls, _loading[-1] if _loading else None))
        return cls

    return add


def declare(kind: str, parts: Mapping[str, tuple[type, str]]) -> None:
    """Make parts known whose classes are imported when they are used: {name: (options, "module:Class")}."""
    for name, (options, home) in parts.items():
        _add(Part(kind, name, options, home))


def reserve(kind: str, modules: Mapping[str, str]) -> None:
    """Make parts known by the modules that register them; a module is imported when its part is asked for."""
    _modules.update({(kind, name): module for name, module in modules.items()})


def backbone_name(model_type: str) -> str:
    """The name of a backbone by its `model_type`, in the form of file names: maskformer-swin -> maskformer_swin."""
    return model_type.replace("-", "_").removesuffix("_backbone")


def _add(part: Part) -> None:
    if part.kind not in KINDS:
        raise ValueError(f"register: no kind of part {part.kind!r}{nearest(part.kind, KINDS)}")
    if not is_dataclass(part.options):
        raise ValueError(f"register({part.kind!r}, {part.name!r}): {part.options.__name__} must be a dataclass")
    key = (part.kind, part.name)
    owner = _address(_parts[key]) if key in _parts else _modules.get(key)
    if owner is not None and _address(part) != owner and _address(part).partition(":")[0] != _modules.get(key):
        raise ValueError(f"{part.kind} {part.name!r} is taken by {owner}; choose another name")
    _parts[key] = part


def _address(part: Part) -> str:
    return part.home if isinstance(part.home, str) else f"{part.home.__module__}:{part.home.__qualname__}"


def find(kind: str, name: object, where: str | None = None) -> Part:
    """The part of a kind by its name. Raises ValueError that begins with `where` and names the nearest known one."""
    key = (kind, backbone_name(str(name)) if kind == "backbone" else str(name))
    if key not in _parts and key in _modules:
        importlib.import_module(_modules[key])
    if key not in _parts:
        _load_entry_points()
    if key not in _parts:
        what = f"{where}={name!r}" if where else f"no {kind} {name!r}"
        raise ValueError(f"{what}{nearest(name, names(kind))}")
    return _parts[key]


def names(kind: str) -> list[str]:
    """The names of all parts of a kind."""
    _load_entry_points()
    return sorted({name for of, name in [*_parts, *_modules] if of == kind})


def from_plugins() -> list[Part]:
    """The parts that plugins brought."""
    return [part for part in _parts.values() if part.plugin is not None]


def load_plugin(module: str) -> None:
    """Import a user's module, whose decorators register its parts.

    Raises ValueError in one line when it cannot be imported.
    """
    _load(module, lambda: importlib.import_module(module))


def plugins() -> list[Plugin]:
    """The plugins that were loaded, in order."""
    return list(_plugins.values())


@cache
def _load_entry_points() -> None:
    for point in (point for group in ENTRY_POINTS for point in importlib.metadata.entry_points(group=group)):
        _load(point.module, partial(_load_entry_point, point))


def _load_entry_point(point: importlib.metadata.EntryPoint) -> None:
    """Import a module of parts; a class of backbones that it names needs no decorator."""
    offered = point.load()
    if isinstance(offered, type) and hasattr(offered, "config_class"):
        register(offered)


def _load(module: str, load: Callable[[], Any]) -> None:
    _loading.append(module)
    try:
        load()
    except Exception as error:  # whatever a module of the user's raises while it is imported
        raise ValueError(f"plugin {module!r} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        _loading.pop()
    _plugins[module] = _described(module)


def _described(module: str) -> Plugin:
    package = module.partition(".")[0]
    distributions = importlib.metadata.packages_distributions().get(package)
    version = importlib.metadata.version(distributions[0]) if distributions else None
    file = getattr(sys.modules.get(module), "__file__", None)
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    return Plugin(module, version, digest)
