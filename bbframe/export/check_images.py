"""The images on which an export is checked: those of the run, or those that a user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from bbframe.data import make_data
from bbframe.data.data_module import DataModule
from bbframe.imaging.decode import read_image
from bbframe.predict.input_images import find_images
from bbframe.predict.trained_network import TrainedNetwork
from bbframe.registry import parse_part
from bbframe.run.checkpoint import load_checkpoint

CHECKED = 16  # images


def run_images(checkpoint: Path, network: TrainedNetwork) -> DataModule:
    """The images of the run that left a checkpoint. Raises ValueError when they are gone."""
    config = load_checkpoint(checkpoint).run.config
    return make_data(
        parse_part("data", config.get("data"), "data"),
        seed=int(config.get("seed", 0)),
        preprocessing=network.backbone.preprocessing,
        num_channels=network.backbone.config.num_channels,
        stride=max(network.backbone.strides),
        masks=parse_part("head", config.get("head"), "head").masks,
    )


def tested_pictures(data: DataModule) -> list[tuple[str, Image.Image]]:
    """Some of the tested images, spread evenly over all, with their names."""
    part, count = data.parts[data.test_part], data.counts[data.test_part]
    chosen = sorted({i * count // CHECKED for i in range(CHECKED)})
    return [(part.name(i), part.read(i)) for i in chosen]


def named_pictures(words: Sequence[str], network: TrainedNetwork) -> list[tuple[str, Image.Image]]:
    """The first images among files and folders. Raises ValueError when there are none or one is broken."""
    try:
        inputs = find_images(list(words), Path("."))[:CHECKED]
    except ValueError as error:
        raise ValueError(str(error).replace("predict:", "export:", 1)) from error
    found = []
    for item in inputs:
        try:
            found.append((item.name, read_image(item.path, network.decoding)))
        except Exception as error:  # a decoder may raise anything on a broken file
            raise ValueError(f"export: images={item.path} cannot be read ({error})") from error
    return found
