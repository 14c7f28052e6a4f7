"""A backbone's weights in the Hub's layout, written to a folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from bbframe.files import atomic, write_text
from bbframe.preprocessing import Preprocessing


def save_checkpoint(folder: str | os.PathLike[str], backbone: Any, preprocessing: Preprocessing | None = None) -> None:
    """Write `config.json`, `preprocessor_config.json` and `model.safetensors`, creating the folder.

    The weights get the names that the Hub's backbone checkpoints use. Without `preprocessing` the backbone's own is
    written. Raises ValueError when the folder cannot be written.
    """
    path, keys = Path(folder), backbone.keys
    config = {**backbone.config.to_dict(), "architectures": [type(backbone).__name__]}
    images = (preprocessing or backbone.preprocessing).to_hub()
    tensors = {}
    for name, value in backbone.state_dict().items():
        parts = keys.theirs(name)
        for part, chunk in zip(parts, value.chunk(len(parts)) if len(parts) > 1 else [value], strict=True):
            tensors[keys.saved(part)] = chunk.detach().cpu().contiguous().clone()
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name, data in (("config.json", config), ("preprocessor_config.json", images)):
            write_text(path / name, json.dumps(data, indent=2, sort_keys=True) + "\n")
        with atomic(path / "model.safetensors") as part:
            save_file(tensors, part, metadata={"format": "pt"})
            shutil.copymode(path / "config.json", part)  # safetensors keeps others from reading it
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be written ({error}); choose another folder") from error
