"""`bbframe.load`: a trained network from a run folder, a checkpoint, a saved folder, the Hub or an exported file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bbframe.predict.image_predictor import ImagePredictor

EXPORTED = (".pt2", ".onnx", ".torchscript", ".xml")


def load(
    source: str | os.PathLike[str],
    *,
    device: str = "cpu",
    revision: str | None = None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
    token: str | None = None,
) -> Any:
    """A trained network that is called on images: backbone, head, preprocessing, class names and calibration.

    `source` is a run folder (its best checkpoint counts), a checkpoint file, a folder that `save_pretrained` wrote,
    an id on the Hub of such a folder, or an exported file. `device` is one of torch's, or "auto": a GPU where there is
    one. `revision`, `cache_dir`, `local_files_only` and `token` are for the Hub. Raises ValueError, in one line, when
    there is no such network or something is wrong with it.
    """
    from bbframe.predict.prediction import find_checkpoint
    from bbframe.predict.trained_network import load_trained_network

    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"load: {source!r:.60} must be a run folder, a saved folder, an id on the Hub or a file")
    path = Path(source).expanduser()
    if is_exported(path):
        from bbframe.predict.exported_file import open_exported

        return open_exported(path)
    return load_trained_network(find_checkpoint(path), device)


def is_exported(path: Path) -> bool:
    """Whether a path is called like a file that `bbframe export` writes."""
    return path.suffix in EXPORTED


def load_predictor(source: str, device: str = "auto") -> ImagePredictor:
    """What `load` returns, for a command line that names a network by `run=`."""
    found: ImagePredictor = load(source, device=device)
    return found
