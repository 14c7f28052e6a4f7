"""A trained network with its model card, written to a folder or published on the Hub."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from bbframe.files import write_text
from bbframe.hub.publishing import check_repository_name, publish_folder
from bbframe.predict.model_card import model_card
from bbframe.predict.saved_network import save_network
from bbframe.predict.trained_network import TrainedNetwork
from bbframe.run.masking import mask_text

CARD = "README.md"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")


def check_licence(licence: str | None) -> None:
    """Raise ValueError unless it is an identifier of the kind that the Hub lists."""
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise ValueError(
            f"licence={licence!r} must be an identifier of the Hub's list, in small letters, such as apache-2.0 or mit"
        )


def write_published(network: TrainedNetwork, folder: Path, repository: str, licence: str | None = None) -> None:
    """Write what is published: the saved network and its model card. Raises ValueError when it cannot be written."""
    check_licence(licence)
    save_network(network, folder)
    try:
        write_text(folder / CARD, mask_text(model_card(network, repository, licence)))
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written ({error}); choose another folder") from error


def publish_network(
    network: TrainedNetwork,
    repository: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str | None = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> str:
    """Publish a network with its card in one commit, and return its URL; `TrainedNetwork.push_to_hub` says how."""
    check_repository_name(repository)
    with tempfile.TemporaryDirectory() as folder:
        write_published(network, Path(folder), repository, licence)
        return publish_folder(
            Path(folder),
            repository,
            private=private,
            token=token,
            revision=revision,
            message=message or "A network trained with bbframe",
            overwrite=overwrite,
        )
