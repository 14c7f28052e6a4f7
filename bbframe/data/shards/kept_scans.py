"""What was found in shards of other programs, kept so that nobody needs to look through them again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from bbframe.data.loading_options import LoadingOptions
from bbframe.data.shards.shard_cache import default_cache
from bbframe.data.shards.shard_index import ShardIndex
from bbframe.data.shards.shard_places import ShardFile, ShardPlace
from bbframe.files import atomic, write_text
from bbframe.imaging.decode import Decoding

SCANS = "scans"  # the folder within the cache
VERSION = 2  # of what a scan finds
MOST_SHARDS = 2**31

# the index of each part, the names of the classes, and what was dropped: (kind, name, why)
Scanned = tuple[dict[str, ShardIndex], list[str], list[tuple[str, str, str]]]


def keep_scan(
    options: LoadingOptions, place: ShardPlace, files: dict[str, list[ShardFile]], found: Scanned
) -> Scanned:
    """Keep what was found; returns it."""
    if (folder := _folder(options, place, files)) is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for part, index in found[0].items():
            with atomic(folder / f"{part}.npz") as path:
                path.write_bytes(index.to_bytes())
        write_text(folder / "classes.json", json.dumps({"classes": found[1], "dropped": found[2]}))
    return found


def kept_scan(options: LoadingOptions, place: ShardPlace, files: dict[str, list[ShardFile]]) -> Scanned | None:
    """What an earlier scan of the same files has found; None when there was none, or it cannot serve."""
    folder = _folder(options, place, files)
    if folder is None or not (folder / "classes.json").is_file():
        return None
    try:
        about = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
        names, dropped = [str(name) for name in about["classes"]], [tuple(map(str, row)) for row in about["dropped"]]
        if dropped and getattr(options, "on_error", "raise") != "skip":
            return None
        indexes = {
            part: ShardIndex.from_bytes((folder / f"{part}.npz").read_bytes(), MOST_SHARDS, len(names))
            for part in files
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it is only a copy of what the shards say
    return indexes, names, dropped  # type: ignore[return-value]


def _folder(options: LoadingOptions, place: ShardPlace, files: dict[str, list[ShardFile]]) -> Path | None:
    """Where the scan of these very files is kept; None where one is not to be had."""
    looked = Decoding.of(options) if getattr(options, "verify", False) else None  # what a broken image is
    digest = hashlib.sha256(f"{VERSION} {options.task} {looked} {place}".encode())
    for part, tars in files.items():
        for file in tars:
            digest.update(f"{part} {file.name}".encode())
            if not place.far:
                try:
                    facts = place.path(file).stat()
                except OSError:
                    return None
                digest.update(f"{facts.st_size} {facts.st_mtime_ns}".encode())
    cache = Path(options.shard_cache).expanduser() if options.shard_cache else default_cache()
    return cache / SCANS / digest.hexdigest()[:32]
