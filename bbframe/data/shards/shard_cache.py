"""A bounded folder of files that came from URLs, shared by all processes of a machine."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from bbframe.data.shards.downloads import PIECE, download, without_query

_UNITS = {"M": 10**6, "G": 10**9, "T": 10**12}
PART = ".part"


def bytes_of(size: str) -> int:
    """The bytes of a size: "50GB" -> 50,000,000,000."""
    return int(float(size[:-2]) * _UNITS[size[-2]])


def default_cache() -> Path:
    """The folder that keeps shards unless another is given."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bbframe" / "shards"


class ShardCache:
    """Files by their URLs, at most `most` bytes of them; what was not used for longest makes room.

    A file is whole or absent. One process fetches it, and the others wait for that one. A file that is removed while
    a process has it open stays readable there.
    """

    def __init__(self, folder: Path, most: int):
        self.folder, self.most = folder, most

    def fetch(self, url: str, size: int | None = None, sha256: str | None = None, fresh: bool = False) -> Path:
        """The file of a URL, downloaded if it is not there.

        It is known by its SHA-256 where that is given, so that a new file at an old URL is another one;
        `fresh` asks for the URL's content of now. Raises ValueError in one line when it cannot be had, or is not what
        it should be.
        """
        key = sha256 or hashlib.sha256(url.encode()).hexdigest()
        path = self.folder / f"{key[:32]}-{url.rpartition('/')[2][-100:]}"
        if not fresh and self._touched(path):
            return path
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"data: shard_cache={self.folder} cannot be made: {error.strerror}") from error
        with FileLock(self.folder / f".{path.name}.lock"):
            if not fresh and self._touched(path):
                return path
            part = self.folder / f".{path.name}.{size or 0}{PART}"
            self._make_room(part, size or 0)
            for again in (True, False):
                download(url, part, size)
                if sha256 is None or _sha256(part) == sha256:
                    break
                part.unlink()
                if not again:
                    raise ValueError(
                        f"{without_query(url)} is not the file that its index says: another SHA-256, twice"
                    )
            os.replace(part, path)
        return path

    def _touched(self, path: Path) -> bool:
        """Whether a file is there; it then counts as just used."""
        with suppress(OSError):
            os.utime(path)
            return True
        return False

    def _make_room(self, part: Path, size: int) -> None:
        """Remove files until there is room for another one of `size` bytes."""
        with FileLock(self.folder / ".room.lock"):
            files: list[tuple[float, int, Path]] = []
            taken = size
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    with suppress(OSError):
                        if not entry.is_file():
                            continue
                        facts = entry.stat()
                        if entry.name.endswith(PART):  # it grows to the size in its name
                            said = int(entry.name.removesuffix(PART).rpartition(".")[2])
                            taken += 0 if entry.name == part.name else max(said, facts.st_size)
                        elif not entry.name.endswith(".lock"):
                            taken += facts.st_size
                            files.append((facts.st_mtime, facts.st_size, Path(entry.path)))
            for _, freed, path in sorted(files):
                if taken <= self.most:
                    break
                path.unlink(missing_ok=True)
                taken -= freed
            part.touch()  # it counts from now on


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
