"""`bbframe push`: a trained network with its model card on the Hub, or in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bbframe.app.text_arguments import typed_arguments
from bbframe.schema import Name, Options, parse


@dataclass(frozen=True, kw_only=True)
class PushOptions(Options):
    """`run` is whatever `bbframe.load` takes, `repo` is "user/name" on the Hub.

    With `folder` everything is written there and nothing is sent. `licence` is one of the Hub's identifiers. `branch`
    is made if need be. `overwrite` allows a commit to a repository, or files to a folder, that is there already.
    """

    prefix: ClassVar[str] = "push: "

    run: Name
    repo: Name | None = None
    folder: Name | None = None
    private: bool = False
    licence: Name | None = None
    branch: Name | None = None
    message: Name | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repo is None and self.folder is None:
            raise ValueError("push: repo must be given: repo=user/name; or folder=... to write it there alone")


def push(arguments: Sequence[str]) -> int:
    """Publish a network as a command line says; returns the exit code."""
    given = typed_arguments(arguments, "push", ("run", "folder"), ("repo", "licence", "branch", "message"))
    if "token" in given:
        raise ValueError("push: a token has no place on a command line; run `hf auth login`, or set HF_TOKEN")
    options = parse(PushOptions, given, "push")

    from bbframe.hub.publishing import check_repository_name
    from bbframe.predict.network_loading import load
    from bbframe.predict.network_publishing import check_licence, publish_network, write_published
    from bbframe.predict.trained_network import TrainedNetwork
    from bbframe.run.masking import outward

    check_licence(options.licence)
    if options.repo is not None:
        check_repository_name(options.repo)
    folder = None if options.folder is None else Path(options.folder)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"push: folder={folder} is a file; name a folder")
    if folder is not None and not options.overwrite and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"push: folder={folder} holds files already; name another, or overwrite=true replaces them")
    network = load(options.run)
    if not isinstance(network, TrainedNetwork):
        raise ValueError(f"push: run={options.run}: an exported file is not published; name the run that it is of")
    if folder is not None:
        write_published(network, folder, options.repo or f"user/{folder.resolve().name}", options.licence)
        print(f"written, not sent: {outward(str(folder))}")
        return 0
    url = publish_network(
        network,
        str(options.repo),
        private=options.private,
        revision=options.branch,
        message=options.message,
        licence=options.licence,
        overwrite=options.overwrite,
    )
    print(f"published: {outward(url)}\nits use:   bbframe.load({options.repo!r})")
    return 0
