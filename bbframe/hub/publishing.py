"""A folder uploaded to a repository on the Hub, in one commit, by huggingface_hub's own client."""

from __future__ import annotations

import os
import re
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

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def check_repository_name(name: str) -> None:
    """Raise ValueError unless a name is `user/name`, as the Hub writes it."""
    if not _NAME.fullmatch(name) or "--" in name or ".." in name or name.endswith((".git", ".")):
        raise ValueError(
            f"repo={name!r} must be <user or organisation>/<name> of letters, digits, - _ and ., such as anna/flowers"
        )


def publish_folder(
    folder: Path,
    name: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str = "Upload",
    overwrite: bool = False,
) -> str:
    """Upload the files of a folder in one commit, and return its URL. Other files of the repository stay.

    The repository is made; one that is there already is taken with `overwrite` alone. `revision` is a branch, made if
    need be. Without `token`, the token of `hf auth login` is sent to huggingface.co alone, and the value of HF_TOKEN
    to another HF_ENDPOINT. Raises ValueError, in one line, for whatever goes wrong.
    """
    import huggingface_hub

    check_repository_name(name)
    mask_logs()
    sent = token_to_send() if token is None else token
    if not (huggingface_hub.get_token() if sent is None else sent):
        raise ValueError(
            f"{name}: no token to write to the Hub; {login_advice()}, or set HF_TOKEN to one that may write"
        )
    client = huggingface_hub.HfApi(token=sent)
    made = False
    try:
        client.create_repo(name, private=private, exist_ok=overwrite)
        if private and overwrite and not client.model_info(name).private:
            raise ValueError(
                "private=true, and the repository is there already and public; make it private on its page"
            )
        made = True
        if revision not in (None, "main"):
            client.create_branch(name, branch=str(revision), exist_ok=True)
        done = client.upload_folder(repo_id=name, folder_path=folder, commit_message=message, revision=revision)
    except Exception as error:  # each version of the client raises its own classes
        raise _upload_failure(name, error, made and not overwrite) from error
    return os.fspath(done.commit_url)


def _upload_failure(name: str, error: Exception, left: bool) -> ValueError:
    """The error of a failed upload; `left` says that this call has made the repository, which is empty now."""
    from huggingface_hub import errors

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # the client's word for a file
        error = error.__cause__
    told = first_line(error)
    again = "; the repository is made: overwrite=true goes on with it" if left else ""
    status = status_code(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ValueError(f"{name}: HF_HUB_OFFLINE is set, and an upload needs the Hub; unset it")
    if status == 401:
        return ValueError(f"{name}: the token is not accepted ({told}); {login_advice()}{again}")
    if status in (402, 403):
        return ValueError(
            f"{name}: the token may not write there ({told}); take one with the right to write, and a user or "
            f"organisation that you belong to{again}"
        )
    if status == 409 and not left:
        return ValueError(f"{name}: the repository exists; choose another name, or overwrite=true adds a commit to it")
    if connection_broken(error):
        place = mirror() or "the Hub"
        return ValueError(f"{name}: {place} cannot be reached ({told}); try again where there is a network{again}")
    if isinstance(error, ValueError) and status is None:  # the client's or our own: it says what to change
        return ValueError(f"{name}: {' '.join(str(error).split())[:500]}{again}")
    return ValueError(f"{name}: could not be uploaded ({told}); try again{again}")
