"""A repository on the Hub, read through huggingface_hub's client and cache; damaged files are not kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from safetensors import SafetensorError, safe_open


class Repository:
    """The files of one repository; the first file fetched fixes `revision`, so that all come from one commit.

    Without `token`, the token of `hf auth login` is sent to huggingface.co alone; another HF_ENDPOINT is sent the
    value of HF_TOKEN, where it is set.
    """

    def __init__(
        self, name: str, revision: str | None, *, cache_dir: str | None, local_files_only: bool, token: str | None
    ):
        self.name, self.revision = name, revision
        self.offline = local_files_only  # only the cache counts
        self._why = ""  # the reason for being offline, unless the caller asked for it
        self._cache_dir = cache_dir
        self._token: str | bool | None = token
        self._knocked = False
        self._digests: dict[Path, str] = {}

    def fetch(self, file: str) -> Path | None:
        """The path of a file in the cache, downloaded when it is not there; None when the repository lacks it.

        Offline None also means that the cache lacks it. Raises ValueError for everything else that goes wrong.
        """
        path = self._download(file)
        return None if path is None else self.sound(path, self._damage)

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

    def digest(self, path: Path) -> str:
        """The SHA-256 of a fetched file, in hexadecimal."""
        if path not in self._digests:
            self._digests[path] = hash_file(path, hashlib.sha256())
        return self._digests[path]

    def absent(self, file: str) -> ValueError:
        """The error for a needed file that the cache lacks while the Hub cannot be reached."""
        pinned = f" --revision {self.revision}" if self.revision else ""
        return ValueError(
            f"{self.name}: {file}: {self._unreachable()} and the file is not in the cache; where there is a network "
            f"run `hf download {self.name}{pinned} --local-dir FOLDER`, then give FOLDER in its place"
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
            raise ValueError(
                f"{what}: the repository is gated; ask for access on its page, then {_login()}"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise ValueError(f"{what}: no revision {self.revision!r}; leave revision null for the newest") from error
        except errors.RepositoryNotFoundError as error:
            raise ValueError(
                f"{what}: no such repository on the Hub, or a private one; check the spelling, or {_login()}"
            ) from error
        except errors.LocalEntryNotFoundError as error:
            if self.offline:
                return None
            raise _failure(what, error) from error  # nobody can tell whether there is such a file
        except errors.EntryNotFoundError:
            return None
        except Exception as error:  # each version of the client raises its own classes for a broken connection
            # a wrong size, a momentary failure, or an older client's partial download that cannot be continued
            odd = _status(error) in (416, 500, 502, 503, 504) or (type(error) is OSError and error.errno is None)
            if odd and not force:
                return self._download(file, force=True)
            raise _failure(what, error) from error
        folder = Path(path).parent
        if folder.parent.name == "snapshots":
            self.revision = folder.name
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
        if self._token is None:
            self._token = _token()
        try:
            url = huggingface_hub.hf_hub_url(self.name, file, revision=self.revision)
            if huggingface_hub.get_hf_file_metadata(url, token=self._token).commit_hash is None:
                place = _mirror() or constants.ENDPOINT
                self._why = f"what answers at {place} is not the Hub: a login page of the network?"
        except errors.HFValidationError as error:
            raise ValueError(f"{self.name}: no valid id on the Hub ({first_line(error)})") from error
        except errors.OfflineModeIsEnabled:
            self._why = "HF_HUB_OFFLINE is set"
        except errors.HfHubHTTPError as error:
            # the Hub answered, and the download will say what is wrong; a busy Hub would be retried for half a minute
            busy = (_status(error) or 0) >= 429
            if busy and huggingface_hub.try_to_load_from_cache(self.name, file, self._cache_dir, self.revision):
                self._why = first_line(error)
        except Exception as error:  # no route, no name, no certificate, a proxy that refuses
            self._why = first_line(error)
        self.offline = bool(self._why)

    def _unreachable(self) -> str:
        return "the Hub cannot be reached" + (f" ({self._why})" if self._why else "")

    def _damage(self, path: Path) -> str | None:
        """How a file in the cache differs from the one on the Hub, or why it cannot be read; None without a fault.

        The cache names a file's content by the hash that the Hub announced: SHA-256 for large files, git's SHA-1 for
        small ones. Mirrors may announce a plain SHA-1, or a tag that is no hash.
        """
        announced, found = Path(os.readlink(path)).name if path.is_symlink() else "", []
        if re.fullmatch(r"[0-9a-f]{64}", announced):
            found = [self.digest(path)]
        elif re.fullmatch(r"[0-9a-f]{40}", announced):
            git = b"blob %d\0" % path.stat().st_size
            found = [hash_file(path, hashlib.sha1(start, usedforsecurity=False)) for start in (git, b"")]
        if found and announced not in found:
            return f"{path.stat().st_size} bytes with the hash {found[0]}, where the Hub announced {announced}"
        return file_fault(path)

    def _forget(self, path: Path) -> None:
        """Delete a file from the cache."""
        content = path.parent / os.readlink(path) if path.is_symlink() else path
        self._digests.pop(path, None)
        try:
            content.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(f"{path}: damaged, and cannot be deleted ({error}); delete it and try again") from error


def file_fault(path: Path) -> str | None:
    """Why a JSON or safetensors file cannot be read; None when it can be, or is of another kind."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):
                pass
    except (ValueError, RecursionError) as error:
        return f"not valid JSON ({error})"
    except (SafetensorError, OSError) as error:
        return f"not a whole safetensors file ({path.stat().st_size} bytes: {error})"
    return None


def hash_file(path: Path, digest: Any) -> str:
    """The hexadecimal digest of a file, by an object of `hashlib`."""
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _mirror() -> str | None:
    """The endpoint that replaces huggingface.co, without its password; None when there is none."""
    from huggingface_hub import constants

    place = urlsplit(constants.ENDPOINT)
    own = place.scheme == "https" and f".{place.hostname}".endswith(".huggingface.co")
    return None if own else place._replace(netloc=place.netloc.rpartition("@")[2]).geturl()


def _token() -> str | bool | None:
    """The token to send when none is given. None leaves the choice to the client, which sends a login's anywhere."""
    from huggingface_hub import constants

    if _mirror() is None:
        return None
    return (not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and os.environ.get("HF_TOKEN", "").strip()) or False


def _login() -> str:
    mirror = _mirror()
    return "run `hf auth login`" + (f"; {mirror} is sent a given token or HF_TOKEN's, no login's" if mirror else "")


def _failure(what: str, error: BaseException) -> ValueError:
    cause = error.__cause__ or error
    if _status(cause) in (401, 403):
        return ValueError(f"{what}: access is refused ({first_line(cause)}); ask for it, then {_login()}")
    place = f", or check HF_ENDPOINT={mirror}" if (mirror := _mirror()) else ""
    return ValueError(f"{what}: could not be downloaded ({first_line(cause)}); try again{place}")


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def first_line(error: BaseException) -> str:
    """What an error says in its first line, or its name when it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
