"""Where shards lie, on a disk or at a URL, and which of them `data.shards` means."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bbframe.data.loading_options import LoadingOptions
from bbframe.data.shards.downloads import SCHEMES
from bbframe.data.shards.shard_cache import ShardCache, bytes_of, default_cache
from bbframe.files import visible

MOST_NAMES = 1_000_000  # that a pattern with braces may stand for
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class ShardFile:
    """A file of a set: its name below the set's place, and what it should be, where that is known."""

    name: str
    bytes: int | None = None
    sha256: str | None = None
    images: int = 0
    fresh: bool = False  # whether an older copy of it is of no use


class ShardPlace(Protocol):
    """The place of a set."""

    far: bool  # whether files must be fetched

    def path(self, file: ShardFile) -> Path:
        """The file on a disk of this machine. Raises OSError or ValueError when it cannot be had."""

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class NearPlace:
    """A folder."""

    root: Path
    far = False

    def path(self, file: ShardFile) -> Path:
        return self.root / file.name

    def __str__(self) -> str:
        return visible(str(self.root))


@dataclass(frozen=True)
class FarPlace:
    """A folder at a URL, whose files pass through a cache."""

    url: str
    cache: ShardCache
    far = True

    def path(self, file: ShardFile) -> Path:
        return self.cache.fetch(f"{self.url}/{file.name}", file.bytes, file.sha256, file.fresh)

    def __str__(self) -> str:
        return visible(self.url)


def shard_place(options: LoadingOptions) -> tuple[ShardPlace, list[str] | None]:
    """Where `options.shards` points, and the names of the tars that it lists, None for a whole folder.

    Raises ValueError for what is neither a folder, nor a tar, nor a URL.
    """
    said = str(options.shards)
    where = f"data: shards={visible(said)!r}"
    scheme = said.partition("://")[0] if "://" in said else ""
    if said.startswith("pipe:"):
        raise ValueError(f"{where} would run a command; give the URL itself, https:// or s3://")
    if scheme and (scheme not in SCHEMES or not said.partition("://")[2].strip("/")):
        raise ValueError(f"{where} must be a folder, or begin with https:// or s3://")
    if scheme and ("?" in said or "#" in said):
        raise ValueError(f"{where} must be a URL without ? and #")
    if said.endswith(_PACKED):
        raise ValueError(f"{where} is packed, so that no image in it can be found; type gunzip (or the like) first")
    base, names = said.rstrip("/"), None
    if "{" in said or said.endswith(".tar"):
        base, _, _ = said.partition("{")[0].partition("::")[0].rpartition("/")
        found = itertools.islice(_expanded(said, where), MOST_NAMES + 1)
        names = [name.removeprefix(f"{base}/") if base else name for name in found]
        if outside := next((name for name in names if "://" in name or name.startswith("/")), None):
            raise ValueError(f"{where}: {visible(outside)} lies elsewhere; all tars must lie below {visible(base)}")
        if len(names) > MOST_NAMES:
            raise ValueError(f"{where} stands for more than {MOST_NAMES} tars")
        if len(set(names)) < len(names):
            raise ValueError(f"{where} names {Counter(names).most_common(1)[0][0]} twice")
    if scheme:
        folder = Path(options.shard_cache) if options.shard_cache else default_cache()
        return FarPlace(base, ShardCache(folder.expanduser(), bytes_of(options.shard_cache_size))), names
    root = Path(base or ("/" if said.startswith("/") else "."))
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise ValueError(f"{where}: {visible(str(root))} {what}; it must be a folder of shards")
    return NearPlace(root), names


def tars_below(root: Path, where: str) -> list[str]:
    """The tars in a folder and in those within it, links to folders included. Raises ValueError for packed ones."""
    found, seen = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link leads back
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in files:
            below = (Path(folder) / name).relative_to(root).as_posix()
            if name.startswith("._"):  # what macOS keeps beside a file on a foreign disk
                continue
            if name.lower().endswith(_PACKED):
                raise ValueError(f"{where}: {visible(below)} is packed; type gunzip (or the like) first")
            if name.lower().endswith(".tar"):
                found.append(below)
    return sorted(found)


def _expanded(pattern: str, where: str) -> Iterator[str]:
    """The names that a shell's braces stand for: a-{000..002}.tar, {train-{0..9},val}.tar; `::` joins patterns."""
    for one in pattern.split("::"):
        yield from _named(one, where)


def _named(pattern: str, where: str) -> Iterator[str]:
    opened = pattern.find("{")
    if opened < 0:
        yield pattern
        return
    depth, commas, closed = 0, [opened], -1
    for place in range(opened, len(pattern)):
        sign = pattern[place]
        depth += (sign == "{") - (sign == "}")
        if sign == "," and depth == 1:
            commas.append(place)
        if depth == 0:
            closed = place
            break
    if closed < 0:
        raise ValueError(f"{where}: a brace is not closed")
    inside = pattern[opened + 1 : closed]
    words: Iterable[str]
    if found := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
        first, last = int(found[1]), int(found[2])
        if not first <= last < first + MOST_NAMES:
            raise ValueError(f"{where}: {{{inside}}} must rise, by at most {MOST_NAMES}")
        words = (f"{number:0{len(found[1])}d}" for number in range(first, last + 1))
    else:
        ends = [*commas, closed]
        words = (word for a, b in itertools.pairwise(ends) for word in _named(pattern[a + 1 : b], where))
    for word in words:
        for rest in _named(pattern[closed + 1 :], where):
            yield pattern[:opened] + word + rest
