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
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, overload

from bbframe.schema import nearest

KINDS = tuple("backbone task head loss metric data transform optim schedule callback logger".split())
ENTRY_POINTS = "bbframe.parts"

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
        return register("backbone", config.model_type, config)(kind)
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


def _add(part: Part) -> None:
    if part.kind not in KINDS:
        raise ValueError(f"register: no kind of part {part.kind!r}{nearest(part.kind, KINDS)}")
    if not is_dataclass(part.options):
        raise ValueError(f"register({part.kind!r}, {part.name!r}): {part.options.__name__} must be a dataclass")
    taken = _parts.get((part.kind, part.name))
    if taken is not None and _address(taken) != _address(part):
        raise ValueError(f"{part.kind} {part.name!r} is taken by {_address(taken)}; choose another name")
    _parts[part.kind, part.name] = part


def _address(part: Part) -> str:
    return part.home if isinstance(part.home, str) else f"{part.home.__module__}:{part.home.__qualname__}"


def find(kind: str, name: object, where: str | None = None) -> Part:
    """The part of a kind by its name. Raises ValueError that begins with `where` and names the nearest known one."""
    if (kind, name) not in _parts:
        _load_entry_points()
    part = _parts.get((kind, str(name)))
    if part is None:
        raise ValueError(f"{where or kind}={name!r}{nearest(name, names(kind))}")
    return part


def names(kind: str) -> list[str]:
    """The names of all parts of a kind."""
    _load_entry_points()
    return sorted(name for of, name in _parts if of == kind)


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
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        _load(point.module, point.load)


def _load(module: str, load: Callable[[], Any]) -> None:
    if module in _plugins:
        return
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
