"""Images in tars, read by their places: one call to the system each, and nothing is unpacked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from bbframe.data.shards.shard_index import OWN
from bbframe.data.shards.shard_places import ShardFile, ShardPlace

MOST_OPEN = 64  # tars that a process has open


class _Descriptor:
    """An open file, closed when nobody uses it any more: another thread may still read what is put away."""

    def __init__(self, path: Any):
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        if number := getattr(self, "number", None):
            os.close(number)


class TarShards:
    """The tars of one part. `owner` is the id of the set that wrote them, "" for tars of other programs."""

    def __init__(self, place: ShardPlace, files: Sequence[ShardFile], owner: str = ""):
        self.place, self.files, self.owner = place, files, owner
        self._open: dict[int, _Descriptor] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, whose header must say the same.

        Raises ValueError that names the tar when it is not the one that the index describes.
        """
        file = self._opened(shard)
        raw = os.pread(file.number, OWN + size, offset - OWN)
        where = f"{self.files[shard].name} at byte {offset}"
        if len(raw) < OWN + size:
            raise ValueError(f"{where}: the tar is cut off")
        owner = raw[265:297].rstrip(b"\0").decode(errors="replace")
        if raw[257:262] != b"ustar" or _octal(raw[124:136]) != size or (self.owner and owner != self.owner):
            raise ValueError(f"{where}: the tar is not the one that the index describes; write or copy the set anew")
        return raw[OWN:]

    def fetch(self, shard: int) -> None:
        """Have a tar on this machine, if it can be had; whoever reads it says why not."""
        try:
            self.place.path(self.files[shard])
        except (OSError, ValueError):
            return

    def _opened(self, shard: int) -> _Descriptor:
        found = self._open.pop(shard, None)
        while found is None:
            path = self.place.path(self.files[shard])
            try:
                found = _Descriptor(path)
            except FileNotFoundError:
                if not self.place.far:
                    raise
                continue  # removed from the cache since
            if self.place.far:  # what the cache has removed occupies the disk for as long as it is open
                gone = [number for number, one in self._open.items() if os.fstat(one.number).st_nlink == 0]
                for number in gone:
                    self._open.pop(number, None)
        self._open[shard] = found  # the last one now
        if len(self._open) > MOST_OPEN:
            self._open.pop(next(iter(self._open)), None)
        return found


def _octal(field: bytes) -> int:
    text = field.strip(b"\0 ")
    return int(text, 8) if text.isdigit() and not set(text) & set(b"89") else -1
