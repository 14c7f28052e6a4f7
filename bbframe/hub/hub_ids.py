"""Names on the Hub, told from paths here; nothing heavy is imported for it."""

from __future__ import annotations

import re
from pathlib import Path

HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar")  # of files that hold weights


def is_hub_id(source: str) -> bool:
    """Whether a text is `user/name` on the Hub: nothing here has that name, and no folder is called `user`."""
    path = Path(source).expanduser()
    named = HUB_ID.fullmatch(source) is not None and "/" in source and path.suffix.lower() not in WEIGHT_SUFFIXES
    return named and not path.exists() and not path.parent.exists()
