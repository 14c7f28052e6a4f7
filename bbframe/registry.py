"""Every part that a configuration names: its kind, its name, its typed options, and the class behind it.

Our own parts and a user's are registered alike. A user's part is a class, or a function that makes the object, below
`@register(kind, name, options)`. Its module is named by the person who runs a command (`--plugin my_package.parts`),
or offered by an installed package as an entry point in the group `bbframe.parts`. A configuration chooses a part by
its name alone: it never names code. `options` is a dataclass with a field `name`, whose default is the part's name.
The docstring of `bbframe.testing` says what each kind is called with and what it must do.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

from bbframe.schema import nearest, parse, printable

# every kind of part: the module that declares ours, and the class that all options of the kind extend, if any
KINDS = {
    "backbone": "builtins:object",
    "task": "bbframe.tasks:TaskOptions",
    "head": "bbframe.heads:HeadOptions",
    "loss": "bbframe.tasks:",
    "metric": "bbframe.tasks:",
    "data": "bbframe.data:LoadingOptions",
    "transform": "builtins:object",
    "optim": "bbframe.tasks:OptimOptions",
    "schedule": "bbframe.tasks:",
    "callback": "builtins:object",
    "logger": "bbframe.run.logger_options:",
}
ENTRY_POINTS = ("bbframe.parts", "bbframe.backbones")  # the second is the older group, of backbones alone
NO_CODE = "a configuration names no code; register the part, and give its module by --plugin"

C = TypeVar("C", bound=Callable[..., Any])


class PartOptions(Protocol):
    """The options of a part: a dataclass with its name."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Part:
    """A named part: `options` is the dataclass of its options, `home` the class or "module:Class", imported when
    it is asked for, and `plugin` the module outside bbframe that brought it."""

    kind: str
    name: str
    options: type
    home: Callable[..., Any] | str
    plugin: str | None = None

    @property
    def address(self) -> str:
        """Where the class is defined, as "module:Class"."""
        return self.home if isinstance(self.home, str) else f"{self.home.__module__}:{self.home.__qualname__}"

    def load(self) -> Any:
        """The class of this part."""
        return pkgutil.resolve_name(self.home) if isinstance(self.home, str) else self.home


@dataclass(frozen=True)
class Plugin:
    """A module of parts outside bbframe, as a record names it: its package's version and its file's SHA-256, where
    known."""

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
        module = _loading[-1] if _loading else cls.__module__
        plugin = None if module.partition(".")[0] == "bbframe" else module
        _check(kind, name, options)
        _add(Part(kind, name, options, cls, plugin))
        if plugin and not _loading:
            _plugins.setdefault(plugin, _described(plugin))
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
    """The name of a backbone by its `model_type`, in the form of file names: maskformer-swin -> maskformer_swin.

    A last `_backbone` counts only where one of our files has it.
    """
    name = model_type.replace("-", "_")
    return name if ("backbone", name) in _modules else name.removesuffix("_backbone")


def _check(kind: str, name: str, options: type) -> None:
    where = f"register({kind!r}, {name!r})"
    if kind not in KINDS:
        raise ValueError(f"{where}: no kind of part {kind!r}{nearest(kind, KINDS)}")
    title = getattr(options, "__name__", repr(options))
    if not is_dataclass(options):
        raise ValueError(f"{where}: {title} must be a dataclass")
    if kind != "backbone" and "name" not in {field.name for field in fields(options)}:
        raise ValueError(f"{where}: {title} needs a field `name: str = {name!r}`")
    base = _declare_ours(kind)
    if not issubclass(options, base):
        raise ValueError(f"{where}: {title} must extend {base.__module__}.{base.__name__}")


def _add(part: Part) -> None:
    key = (part.kind, backbone_name(part.name) if part.kind == "backbone" else part.name)
    owner = _parts[key].address if key in _parts else _modules.get(key)
    if owner not in (None, part.address) and part.address.partition(":")[0] != _modules.get(key):
        raise ValueError(f"{part.kind} {part.name!r} is taken by {owner}; choose another name")
    _parts[key] = part


@cache
def _declare_ours(kind: str) -> type:
    """Import the module that declares our parts of a kind; returns the class that options of the kind extend."""
    module, _, base = KINDS[kind].partition(":")
    return getattr(importlib.import_module(module), base, object)


def find(kind: str, name: object, where: str | None = None) -> Part:
    """The part of a kind by its name. Raises ValueError that begins with `where` and names the nearest known one."""
    _declare_ours(kind)
    key = (kind, backbone_name(str(name)) if kind == "backbone" else str(name))
    if key not in _parts and key in _modules:
        importlib.import_module(_modules[key])
    if key not in _parts:
        _load_entry_points()
    if key in _parts:
        return _parts[key]
    near = nearest(name, names(kind))
    if "." in str(name) or ":" in str(name):
        near = f"; {NO_CODE}"
    elif "did you mean" not in near:
        near += "; a part of your own needs --plugin its.module"
    raise ValueError((f"{where}={printable(name)}" if where else f"no {kind} {printable(name)}") + near)


def names(kind: str) -> list[str]:
    """The names of all parts of a kind."""
    _declare_ours(kind)
    _load_entry_points()
    return sorted({name for of, name in [*_parts, *_modules] if of == kind})


def parse_part(kind: str, data: Any, where: str) -> Any:
    """The options of the part that `data` chooses: its name, or a mapping of `name` and options.

    Raises ValueError that begins with `where`.
    """
    chosen = {"name": data} if isinstance(data, str) else data
    if not isinstance(chosen, Mapping):
        raise ValueError(f"{where}={printable(data)} must be a name, or a mapping with a name")
    if "_target_" in chosen:
        raise ValueError(f"{where}: _target_={chosen['_target_']!r}: {NO_CODE}")
    part = find(kind, chosen.get("name"), where if isinstance(data, str) else f"{where}: name")
    return parse(part.options, chosen, where)


def make(kind: str, options: PartOptions, *args: Any, **kwargs: Any) -> Any:
    """Build the part that `options` name, as `bbframe.testing` says for its kind."""
    return find(kind, options.name).load()(options, *args, **kwargs)


def from_plugins() -> list[Part]:
    """The parts that plugins brought."""
    return [part for part in _parts.values() if part.plugin is not None]


def load_plugin(module: str) -> None:
    """Import a user's module, whose decorators register its parts.

    Raises ValueError in one line when it cannot be imported.
    """
    with _importing(module):
        importlib.import_module(module)


def plugins() -> list[Plugin]:
    """The plugins that were loaded, in order."""
    return list(_plugins.values())


@cache
def _load_entry_points() -> None:
    for point in (point for group in ENTRY_POINTS for point in importlib.metadata.entry_points(group=group)):
        with _importing(point.module):
            offered = point.load()
            if isinstance(offered, type) and hasattr(offered, "config_class"):
                register(offered)  # a class of backbones needs no decorator


@contextmanager
def _importing(module: str) -> Iterator[None]:
    """Parts that are registered meanwhile belong to the plugin `module`."""
    _loading.append(module)
    try:
        yield
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
