"""A plain JPEG, decoded straight into a tensor where this machine has a decoder that gives Pillow's values."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bbframe.imaging.decode import AS_USUAL, Decoding, orientation_of
from bbframe.imaging.image_files import ImageSource, check_regular, open_source, read_header

_BEGIN = b"\xff\xd8\xff"


class UndecodedError(Exception):
    """The tensor decoder failed; `read_image` says why, or reads the file all the same."""


@dataclass(frozen=True)
class JpegFile:
    """The bytes of a JPEG that is upright and grey or RGB, and its `size` (width, height)."""

    content: Tensor
    size: tuple[int, int]

    def pixels(self) -> Tensor:
        """(C, H, W) uint8, the values of `read_image`; the channels of a pixel lie together. Raises UndecodedError."""
        decoder = tensor_decoder()
        assert decoder is not None
        try:
            return decoder[1](self.content)
        except (RuntimeError, ValueError) as error:
            raise UndecodedError from error


def plain_jpeg(source: ImageSource, decoding: Decoding = AS_USUAL) -> JpegFile | None:
    """The file, if `read_image` would only decode it; None for one that it turns or converts, or refuses.

    None for every file where there is no tensor decoder. Nothing is raised: `read_image` meets the same fault.
    """
    try:
        check_regular(source)
        with open_source(source) as file:
            if file.read(len(_BEGIN)) != _BEGIN or tensor_decoder() is None:
                return None
            file.seek(0)
            image, assumed = read_header(file, decoding.max_pixels), list[str]()
            turned = orientation_of(image, assumed) != 1
            if image.format != "JPEG" or image.mode not in ("L", "RGB") or turned or assumed:
                return None
            content = bytearray(file.seek(0, os.SEEK_END))
            file.seek(0)
            file.readinto(content)  # type: ignore[attr-defined]
    except Exception:  # a header may break its reader in any way
        return None
    return JpegFile(torch.frombuffer(content, dtype=torch.uint8), image.size)


@cache
def tensor_decoder() -> tuple[str, Callable[[Tensor], Tensor]] | None:
    """The library and its function, bytes (N,) uint8 -> pixels (C, H, W) uint8; None where Pillow alone decodes.

    It takes four fifths of Pillow's time and spares the way from an image to a tensor. A probe must give Pillow's
    values, so that a run's pixels do not depend on what else is installed.
    """
    return next(((name, decode) for name, decode in _candidates() if _is_right(decode)), None)


def _candidates() -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """torchcodec's where it is installed; torchvision announces the end of its own and points to that one."""
    try:
        from torchcodec.decoders import decode_jpeg

        yield "torchcodec", lambda content: decode_jpeg(content, mode="UNCHANGED")
    except (ImportError, OSError, RuntimeError):  # one of another torch cannot be loaded
        pass
    import torchvision.io  # noqa: F401  # brings the operator

    yield "torchvision", lambda content: torch.ops.image.decode_jpeg(content, 0, False)


def _is_right(decode: Callable[[Tensor], Tensor]) -> bool:
    """Whether a decoder gives Pillow's values on this machine."""
    y, x = np.mgrid[:45, :61]
    waves = np.stack([128 + 127 * np.sin(x / (2 + c) + y * y / 90) * np.cos(y / (3 - c)) for c in range(3)], 2)
    picture = Image.fromarray(waves.astype(np.uint8))
    for image, options in ((picture, {}), (picture, {"progressive": True}), (picture.convert("L"), {})):
        file = io.BytesIO()
        image.save(file, "JPEG", **options)
        with Image.open(file) as seen:
            usual = np.array(seen).reshape(45, 61, -1)
        try:
            pixels = decode(torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8))
        except Exception:  # an operator that is gone, or changed
            return False
        if not torch.equal(pixels, torch.from_numpy(usual).permute(2, 0, 1)):
            return False
    return True
