"""Whether a checkpoint's weights can be had: in the cache, or from a Hub that answers."""

from __future__ import annotations

from pathlib import Path

from bbframe.hub.checkpoint_files import WEIGHT_FILES
from bbframe.hub.client import Repository


def are_weights_here(checkpoint: str, revision: str | None = None) -> bool:
    """Whether a checkpoint is a folder or a file, or its weights are in the Hub's cache."""
    if Path(checkpoint).expanduser().exists():
        return True
    import huggingface_hub

    try:
        found = (huggingface_hub.try_to_load_from_cache(checkpoint, name, revision=revision) for name in WEIGHT_FILES)
        return any(isinstance(path, str) for path in found)
    except Exception:  # no valid id: whoever loads it says so
        return False


def why_unreachable(checkpoint: str) -> str:
    """Why the Hub does not answer; "" when it does. One short question about a repository is sent."""
    repository = Repository(checkpoint, None, cache_dir=None, local_files_only=False, token=None)
    return repository.why_unreachable("config.json")
