"""Files that are whole or absent, and YAML that a person can read and a run can read back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import yaml

try:
    from yaml import CSafeLoader as SafeLoader  # of libyaml, six times as fast
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeLoader  # type: ignore
try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore

PART = ".part"  # the end of a temporary file's name
MOST_BYTES, MOST_VALUES, DEEPEST = 10_000_000, 200_000, 60  # of a YAML file
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")


def visible(text: str, keep: str = "") -> str:
    """A text, such as the name of a file, with its control characters spelled out, but for those to `keep`."""
    return UNPRINTABLE.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(), text
    )


def encodable(text: str) -> str:
    """A text, such as the name of a file, with the bytes spelled out that are no UTF-8."""
    return text.encode(errors="backslashreplace").decode()


class _Dumper(yaml.SafeDumper):
    """Plain YAML without anchors, a list of numbers or names in one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Loader(SafeLoader):
    """Safe YAML that reads 1e-3 as a number, as Hydra does; YAML 1.1 reads it as text."""


def _represent_list(dumper: yaml.SafeDumper, data: list[Any] | tuple[Any, ...]) -> yaml.Node:
    inline = not any(isinstance(item, (dict, list, tuple)) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=inline)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(tuple, _represent_list)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))  # quotes a commit like 1234e56


def dump_yaml(data: Any) -> str:
    """Plain data as YAML, in the order of its keys."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=119)


def check_yaml(path: Path) -> None:
    """Refuse a YAML file that would fill the memory: by its size, its depth or what its aliases (*a) repeat.

    Raises ValueError in one line. A file that is no YAML passes: who reads it says so.
    """
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: has {path.stat().st_size} bytes; a configuration has at most {MOST_BYTES}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    for loader in (SafeLoader, yaml.SafeLoader):  # libyaml gives up a deep file before it tells of its first levels
        with suppress(yaml.YAMLError):
            _check_events(path, yaml.parse(text, Loader=loader))
            return


def _check_events(path: Path, events: Iterator[yaml.Event]) -> None:
    anchors: dict[str | None, int] = {}  # how many values stand below each, its aliases followed
    opened: list[tuple[str | None, int]] = []  # the collections around an event, and the values met before each
    count = 0
    for event in events:
        anchor, start = getattr(event, "anchor", None), count
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in [name for name, _ in opened]:
                raise ValueError(f"{path}: *{event.anchor} stands inside of itself")
            count += anchors.get(event.anchor, 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((anchor, count))
            anchor = None
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start = opened.pop()
        count += 1
        if anchor is not None:
            anchors[anchor] = count - start
        if count > MOST_VALUES or len(opened) > DEEPEST:
            raise ValueError(f"{path}: is nested deeper than {DEEPEST} levels, or its aliases repeat too much")


def read_yaml(path: Path, kind: type) -> Any:
    """The content of a YAML file, a `kind` (dict or list); raises ValueError in one line when it is broken."""
    check_yaml(path)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-99-99
        raise ValueError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, kind):
        raise ValueError(f"{path}: must hold a {'mapping' if kind is dict else 'list'}, not {type(data).__name__}")
    return data


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one."""
    with atomic(path) as part:
        part.write_text(encodable(text), encoding="utf-8")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`, which is renamed to `path` when the block ends well.

    `path` holds the old content or the new, never a part, whenever the machine stops.
    """
    part = path.with_name(f".{path.name}{PART}")
    try:
        with _own(part):
            yield part
            sync(part)
            os.replace(part, path)
        sync(path.parent)
    except Exception as error:
        reason = error if isinstance(error, OSError) else error.__context__  # torch has an error of its own
        if isinstance(reason, OSError):
            reason.filename = reason.filename or str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove the temporary files that killed processes have left in a folder; those of living ones are locked."""
    for part in folder.glob(f".*{PART}"):
        with suppress(OSError), _locked(part, wait=False):
            part.unlink()


@contextmanager
def _own(part: Path) -> Iterator[None]:
    """Hold the lock on a temporary file under its own name: who held it before may have renamed the file."""
    while True:
        with ExitStack() as stack:
            held = stack.enter_context(_locked(part, wait=True))
            if part.exists() and part.stat().st_ino == os.fstat(held).st_ino:
                yield
                return


@contextmanager
def _locked(part: Path, wait: bool) -> Iterator[int]:
    """Hold a lock on a file, which the kernel releases when the process ends, where the file system has locks.

    Gives the file's descriptor.

    Raises OSError when another process holds it, unless it may `wait`.
    """
    with open(part, "ab") as file:
        if fcntl is not None:
            with suppress(OSError) if wait else nullcontext():
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield file.fileno()


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
