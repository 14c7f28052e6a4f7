"""A repository on the Hub, read through huggingface_hub's client and cache; damaged files are not kept."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path

from bbframe.hub.logins import (
    connection_broken,
    first_line,
    login_advice,
    mask_logs,
    mirror,
    status_code,
    token_to_send,
)

log = logging.getLogger(__name__)

_SWITCHED_OFF = "HF_HUB_OFFLINE is set"
_FORBIDDEN: ContextVar[str] = ContextVar("forbidden", default="")  # why no repository may be opened at present
_LARGEST_JSON = 64 << 20  # bytes; the largest indexes on the Hub have a few


@contextmanager
def no_repository(why: str) -> Iterator[None]:
    """Meanwhile a repository on the Hub is refused with this reason, and nothing is sent."""
    token = _FORBIDDEN.set(why)
    try:
        yield
    finally:
        _FORBIDDEN.reset(token)


class Repository:
    """The files of one repository; the first file fetched fixes `revision`, so that all come from one commit.

    Without `token`, the token of `hf auth login` is sent to huggingface.co alone; another HF_ENDPOINT is sent the
    value of HF_TOKEN, where it is set.
    """

    def __init__(
        self, name: str, revision: str | None, *, cache_dir: str | None, local_files_only: bool, token: str | None
    ):
        if why := _FORBIDDEN.get():
            raise ValueError(f"{name}: {why}")
        self.name, self.revision = name, revision
        self.offline = local_files_only  # only the cache counts
        self.note = ""  # what the cache gave although the Hub may have something newer, and why
        self._why = ""  # the reason for being offline, unless the caller asked for it
        self._cache_dir = cache_dir
        self._token: str | bool | None = token
        self._knocked = False

    def fetch(self, file: str) -> Path | None:
        """The path of a file in the cache, downloaded when it is not there; None when the repository lacks it.

        Offline None also means that the cache lacks it. Files of weights are checked when they are read, by `damage`.
        Raises ValueError for everything else that goes wrong.
        """
        path = self._download(file)
        if path is None or path.suffix != ".json":
            return path
        return self.sound(path, lambda path: self.damage(path, path.read_bytes()))

    def lacks(self, file: str) -> bool:
        """Whether the repository is known to lack a file, offline too: the Hub has said so once, at this commit."""
        import huggingface_hub

        found = huggingface_hub.try_to_load_from_cache(self.name, file, self._cache_dir, self.revision)
        return not self.offline or found is huggingface_hub._CACHED_NO_EXIST

    def sound(self, path: Path, fault: Callable[[Path], str | None]) -> Path:
        """A fetched file in which `fault` finds nothing; a faulty one is fetched a second time.

        The faulty file is deleted from the cache when the Hub can replace it. Raises ValueError when the second file
        is faulty too, or when there is no network.
        """
        if (problem := fault(path)) is None:
            return path
        if self.offline:
            raise ValueError(
                f"{path}: {problem}; {self._unreachable()} to fetch it again: where there is a network, delete the "
                "file and run this again"
            )
        self._forget(path)
        again = self._download(path.name, force=True)
        problem = "it is gone from the Hub" if again is None else fault(again)
        if again is not None and problem is None:
            return again
        self._forget(path)
        raise ValueError(
            f"{self.name}: {path.name}: {problem}; fetched twice and not kept: try again later, or give another "
            "revision"
        )

    def absent(self, file: str) -> ValueError:
        """The error for a needed file that the cache lacks while the Hub cannot be reached."""
        pinned = f" --revision {self.revision}" if self.revision else ""
        here = "" if "/" in self.name else "no folder or file of this name is here, and on the Hub: "
        return ValueError(
            f"{self.name}: {here}{file}: {self._unreachable()} and the file is not in the cache; where there is a "
            f"network run `hf download {self.name}{pinned} --local-dir FOLDER`, then give FOLDER in its place"
        )

    def _download(self, file: str, force: bool = False) -> Path | None:
        import huggingface_hub
        from huggingface_hub import errors

        what = f"{self.name}: {file}"
        self._knock(file)
        try:
            path = huggingface_hub.hf_hub_download(
                self.name,
                file,
                revision=self.revision,
                cache_dir=self._cache_dir,
                local_files_only=self.offline,
                token=self._token,
                force_download=force,
            )
        except errors.GatedRepoError as error:
            page = f"{mirror() or 'https://huggingface.co'}/{self.name}"
            known = "; the account of the token that was sent has no access yet" if status_code(error) == 403 else ""
            raise ValueError(
                f"{what}: the repository is gated: accept its terms on {page}, then {login_advice()}{known}"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise ValueError(f"{what}: no revision {self.revision!r}; leave revision null for the newest") from error
        except errors.RepositoryNotFoundError as error:
            raise ValueError(
                f"{what}: no such repository on the Hub, or a private one; check the spelling, or {login_advice()}"
            ) from error
        except errors.LocalEntryNotFoundError as error:
            if self.offline:
                return None
            raise _failure(what, error) from error  # nobody can tell whether there is such a file
        except errors.EntryNotFoundError:
            return None
        except Exception as error:  # each version of the client raises its own classes for a broken connection
            # a wrong size, a momentary failure, or an older client's partial download that cannot be continued
            odd = status_code(error) in (416, 500, 502, 503, 504) or (type(error) is OSError and error.errno is None)
            if odd and not force:
                return self._download(file, force=True)
            raise _failure(what, error) from error
        folder = Path(path).parent
        if folder.parent.name == "snapshots":
            self.revision = folder.name
        if self.offline and not self.note:
            day = datetime.fromtimestamp(Path(path).stat().st_mtime).date()
            self.note = f"from the cache of {day}, {self._unreachable() if self._why else 'as local_files_only says'}"
            if self._why and self._why != _SWITCHED_OFF:
                log.warning("%s at %s: %s", self.name, (self.revision or "")[:12], self.note)
        return Path(path)

    def _knock(self, file: str) -> None:
        """Ask the Hub once, before the first download: when it does not answer, only the cache is used.

        The client itself would retry for half a minute and log every attempt.
        """
        import huggingface_hub
        from huggingface_hub import constants, errors

        if self._knocked or self.offline:
            return
        self._knocked = True
        mask_logs()
        self._token = token_to_send() if self._token is None else self._token
        try:
            url = huggingface_hub.hf_hub_url(self.name, file, revision=self.revision)
            if huggingface_hub.get_hf_file_metadata(url, token=self._token).commit_hash is None:
                place = mirror() or constants.ENDPOINT
                self._why = f"what answers at {place} is not the Hub: a login page of the network?"
        except errors.HFValidationError as error:
            raise ValueError(f"{self.name}: no valid id on the Hub ({first_line(error)})") from error
        except errors.OfflineModeIsEnabled:
            self._why = _SWITCHED_OFF
        except errors.HfHubHTTPError as error:
            # the Hub answered, and the download will say what is wrong; a busy Hub would be retried for half a minute
            busy = (status_code(error) or 0) >= 429
            if busy and huggingface_hub.try_to_load_from_cache(self.name, file, self._cache_dir, self.revision):
                self._why = first_line(error)
        except Exception as error:  # no route, no name, no certificate, a proxy that refuses
            if not connection_broken(error):
                raise _failure(f"{self.name}: {file}", error) from error
            self._why = first_line(error)
        self.offline = bool(self._why)

    def why_unreachable(self, file: str) -> str:
        """Why the Hub does not answer a question about a file, or must not be asked; "" when it answers."""
        self._knock(file)
        return self._why

    def _unreachable(self) -> str:
        return "the Hub cannot be reached" + (f" ({self._why})" if self._why else "")

    def damage(self, path: Path, content: bytes) -> str | None:
        """How the content of a cached file differs from that on the Hub, or why it cannot be read; None if sound.

        The cache names a file's content by the hash that the Hub announced: SHA-256 for large files, git's SHA-1 for
        small ones. Mirrors may announce a plain SHA-1, or a tag that is no hash.
        """
        announced, found = Path(os.readlink(path)).name if path.is_symlink() else "", []
        if re.fullmatch(r"[0-9a-f]{64}", announced):
            found = [hashlib.sha256(content).hexdigest()]
        elif re.fullmatch(r"[0-9a-f]{40}", announced):
            sums = [hashlib.sha1(start, usedforsecurity=False) for start in (b"blob %d\0" % len(content), b"")]
            for digest in sums:
                digest.update(content)
            found = [digest.hexdigest() for digest in sums]
        if found and announced not in found:
            return f"{len(content)} bytes with the hash {found[0]}, where the Hub announced {announced}"
        return json_fault(path, content)

    def _forget(self, path: Path) -> None:
        """Delete a file from the cache."""
        content = path.parent / os.readlink(path) if path.is_symlink() else path
        try:
            content.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(f"{path}: damaged, and cannot be deleted ({error}); delete it and try again") from error


def json_fault(path: Path, content: bytes) -> str | None:
    """Why a JSON file cannot be read; None when it can be, or is of another kind."""
    try:
        if path.suffix == ".json" and len(content) > _LARGEST_JSON:
            return f"{len(content)} bytes of JSON, where {_LARGEST_JSON} are the most"
        if path.suffix == ".json":
            json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return f"not valid JSON ({error})"
    return None


def _failure(what: str, error: BaseException) -> ValueError:
    cause = error.__cause__ or error
    if status_code(cause) in (401, 403):
        return ValueError(f"{what}: access is refused ({first_line(cause)}); ask for it, then {login_advice()}")
    place = f", or check HF_ENDPOINT={endpoint}" if (endpoint := mirror()) else ""
    return ValueError(f"{what}: could not be downloaded ({first_line(cause)}); try again{place}")
