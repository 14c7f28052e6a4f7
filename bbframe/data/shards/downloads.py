"""Files at a URL, fetched with retries that go on where a connection broke off: http, https and s3."""

from __future__ import annotations

import string
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

SCHEMES = ("http", "https", "s3")
WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further try
PATIENCE = 30  # seconds without a byte
PIECE = 2**20
_PAST_ITS_END = 416  # the answer to a part that begins behind the end
_PASSING = (408, 429)  # refusals of a server that may answer later; so may all from 500 on


class _Refused(Exception):
    """A server's last word, such as 404; its text is the reason."""


def download(url: str, part: Path, size: int | None) -> None:
    """Bring `part` to the content of a URL; what it holds already is its beginning.

    `size` is what the content should have, None if nobody knows. Raises ValueError in one line when the server refuses
    or all tries fail; `part` then keeps what has come.
    """
    reason = ""
    for wait in (0.0, *WAITS):
        time.sleep(wait)
        have = part.stat().st_size if part.exists() else 0
        if size is not None and have >= size:
            if have == size:
                return
            part.unlink()
            have = 0
        try:
            with _opened(url, have) as (body, start, rest), part.open("r+b" if start else "wb") as file:
                file.seek(start)
                file.truncate()
                while piece := body.read(PIECE):
                    file.write(piece)
                    rest -= len(piece)
            if rest > 0:
                reason = f"the connection ended {rest} bytes early"
            elif size is None or part.stat().st_size == size:
                return
            else:
                raise _Refused(f"has {part.stat().st_size} bytes there, not the {size} that its index says")
        except _Refused as error:
            raise ValueError(f"{without_query(url)} cannot be fetched: {error}") from error
        except urllib.error.HTTPError as error:
            reason = f"{error.code} {error.reason}"
            if error.code == _PAST_ITS_END:
                part.unlink(missing_ok=True)  # what is there is another file, or all of it
        except (OSError, HTTPException) as error:
            if getattr(error, "filename", None):
                raise  # of this machine, such as a full disk
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
    raise ValueError(
        f"{without_query(url)} cannot be fetched: {' '.join(reason.split())}, after {len(WAITS) + 1} tries"
    )


def without_query(url: str) -> str:
    """A URL as a message shows it, because the rest of it may be a secret."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def _opened(url: str, have: int) -> Iterator[tuple[BinaryIO, int, int]]:
    """The rest of a file behind the first `have` bytes: its body, where it starts, and how many bytes it has."""
    span = f"bytes={have}-" if have else ""
    with (_s3 if url.startswith("s3://") else _http)(url, span) as (body, whole, length):
        yield body, 0 if whole else have, length


@contextmanager
def _http(url: str, span: str) -> Iterator[tuple[BinaryIO, bool, int]]:
    plain = urllib.parse.quote(url, safe=string.punctuation)  # a URL is ASCII
    request = urllib.request.Request(plain, headers={"Range": span} if span else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            yield answer, answer.status != 206, int(answer.headers.get("Content-Length") or 0)
    except urllib.error.HTTPError as error:
        if error.code in (*_PASSING, _PAST_ITS_END) or error.code >= 500:
            raise
        raise _Refused(f"{error.code} {error.reason}") from error


@contextmanager
def _s3(url: str, span: str) -> Iterator[tuple[BinaryIO, bool, int]]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = _s3_client().get_object(Bucket=bucket, Key=key, **({"Range": span} if span else {}))
        with answer["Body"] as body:
            yield body, "ContentRange" not in answer, int(answer["ContentLength"])
    except ClientError as error:
        code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _PASSING or code >= 500:
            raise OSError(str(error)) from error
        raise _Refused(str(error)) from error
    except BotoCoreError as error:
        if "redentials" in str(error):
            raise _Refused(f"{error}; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
        raise OSError(str(error)) from error


@cache
def _s3_client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise ValueError("data: shards at s3:// need boto3: pip install 'bbframe[s3]'") from error
    return boto3.client("s3", config=Config(connect_timeout=PATIENCE, read_timeout=PATIENCE))
