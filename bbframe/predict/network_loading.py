"""`bbframe.load`: a trained network from a run folder, a checkpoint, a saved folder, the Hub or an exported file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbframe.hub.hub_ids import is_hub_id
from bbframe.run.checkpoint_paths import is_checkpoint
from bbframe.run.folder_record import read_folder_record

if TYPE_CHECKING:
    from bbframe.predict.image_predictor import ImagePredictor

EXPORTED = {".pt2": "pt2", ".onnx": "onnx", ".torchscript": "torchscript", ".xml": "openvino"}  # formats by endings
SAVED = "bbframe.json"  # a folder with it holds a saved network


@dataclass(frozen=True)
class FoundNetwork:
    """Where a network is: `source` is what its kind's loader takes, `home` the folder of results about it."""

    kind: str
    source: str
    home: Path


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
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"load: {source!r:.60} must be a run folder, a saved folder, an id on the Hub or a file")
    found = find_network(source)
    if revision is not None and found.kind != "hub":
        raise ValueError(f"{found.source}: revision={revision!r} is for the Hub, and this is local; leave it out")
    hub = {"cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
    return LOADERS[found.kind](found.source, device, {"revision": revision, **hub})


def is_exported(path: Path) -> bool:
    """Whether a path is called like a file that `bbframe export` writes."""
    return path.suffix in EXPORTED


def load_predictor(source: str, device: str = "auto") -> ImagePredictor:
    """What `load` returns, for a command line that names a network by `run=`."""
    found: ImagePredictor = load(source, device=device)
    return found


def find_network(source: str | os.PathLike[str]) -> FoundNetwork:
    """Which kind of network a source names, and where; nothing is loaded, and the Hub is not asked.

    Raises ValueError when there is nothing of that name, here or possibly on the Hub.
    """
    text = os.fspath(source)
    path = Path(text).expanduser()
    if is_exported(path):
        return FoundNetwork("exported", str(path), path.parent)
    if is_hub_id(text):
        return FoundNetwork("hub", text, Path("outputs", text.replace("/", "--")))
    if (path / SAVED).is_file():
        return FoundNetwork("saved", str(path), path)
    if (path / "config.json").is_file() and not (path / "config.yaml").is_file():
        raise ValueError(
            f"{path}: is a backbone without a head; bbframe.AutoBackbone.from_pretrained({str(path)!r}) loads it"
        )
    checkpoint = find_checkpoint(path)
    home = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    return FoundNetwork("checkpoint", str(checkpoint), home)


def find_checkpoint(run: Path) -> Path:
    """The checkpoint file of a run: best.ckpt, else last.ckpt. Raises ValueError for a run that has none."""
    if is_checkpoint(run):
        return run
    read_folder_record(run)
    for name in ("best.ckpt", "last.ckpt"):
        if is_checkpoint(path := run / "checkpoints" / name):
            return path
    raise ValueError(
        f"{run}: the run left no checkpoints/best.ckpt or last.ckpt, as with debug=true, train=false or "
        "trainer.keep=0; give another"
    )


def _load_exported(source: str, device: str, hub: Mapping[str, Any]) -> ImagePredictor:
    if device not in ("cpu", "auto"):
        raise ValueError(
            f"{source}: device={str(device)!r}: exported files run on the CPU here; leave device out, or load the run "
            "itself"
        )
    from bbframe.predict.exported_file import open_exported

    return open_exported(Path(source))


def _load_checkpoint(source: str, device: str, hub: Mapping[str, Any]) -> ImagePredictor:
    from bbframe.predict import trained_network

    return trained_network.load_trained_network(Path(source), device)


def _load_saved(source: str, device: str, hub: Mapping[str, Any]) -> ImagePredictor:
    from bbframe.hub.checkpoint_files import Checkpoint
    from bbframe.predict.network_reading import read_network

    return read_network(Checkpoint(source, **hub), device)


# by the kinds that `find_network` tells apart: each takes the source, the device and the options of the Hub
LOADERS: dict[str, Callable[[str, str, Mapping[str, Any]], ImagePredictor]] = {
    "exported": _load_exported,
    "checkpoint": _load_checkpoint,
    "saved": _load_saved,
    "hub": _load_saved,
}
