"""Anything that a caller may mean by an image, as PIL images that are upright and in mode L or RGB."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from bbframe.imaging.decode import AS_USUAL, Decoding, opaque, opened, read_image, reason
from bbframe.imaging.deep_pixels import scaled_to_bytes

_CHANNELS = (1, 3, 4)
_ACCEPTED = "an image is a PIL image, a path, bytes of a file, an array (H, W, C) or a tensor (C, H, W)"


def as_pictures(images: Any, decoding: Decoding = AS_USUAL) -> tuple[list[Image.Image], bool]:
    """PIL images in mode L or RGB, and whether `images` was a single one rather than several.

    An image is a PIL image, a path, the bytes of a file, an open file, an array (H, W) or (H, W, C), or a tensor
    (H, W) or (C, H, W); an array (C, H, W) is told by its sides. Values are bytes 0..255, 16-bit integers, booleans or
    floating-point numbers 0..1; colours are RGB. Several are an iterable of them, or an array or tensor with one more
    axis. Raises ValueError, in one line, for anything else and for a file that cannot be read.
    """
    images = bytes(images) if isinstance(images, memoryview) else images
    if isinstance(images, (str, os.PathLike, bytes, bytearray, Image.Image)) or hasattr(images, "read"):
        return [_picture(images, decoding)], True
    if isinstance(images, (np.ndarray, torch.Tensor)) or hasattr(images, "__array__"):
        found = images if isinstance(images, torch.Tensor) else np.asarray(images)
        if found.ndim == 4:
            return [_picture(image, decoding) for image in found], False
        return [_picture(found, decoding)], True
    if isinstance(images, Iterable) and not isinstance(images, Mapping):
        return [_picture(image, decoding) for image in images], False
    raise ValueError(f"{_ACCEPTED}; this is a {type(images).__name__}")


def _picture(image: Any, decoding: Decoding) -> Image.Image:
    if isinstance(image, Image.Image):
        return opened(image)
    if isinstance(image, (bytes, bytearray)) or hasattr(image, "read"):
        try:
            with Image.open(io.BytesIO(image) if isinstance(image, (bytes, bytearray)) else image) as file:
                return opened(file)
        except (OSError, ValueError, UnidentifiedImageError) as error:
            raise ValueError(f"the bytes given are no image that can be read: {reason(error)}") from error
    if isinstance(image, (str, os.PathLike)):
        return _from_file(image, decoding)
    if isinstance(image, torch.Tensor):
        if image.layout != torch.strided or image.is_meta or image.is_quantized or image.is_complex():
            raise ValueError(f"a tensor ({image.dtype}, {image.layout}, {image.device}) is no image; {_ACCEPTED}")
        values = image.detach().cpu()
        values = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
        last = values.ndim == 3 and values.shape[0] not in _CHANNELS and values.shape[2] in _CHANNELS
        return _from_array(values.numpy(), channels_first=values.ndim == 3 and not last, kind="a tensor")
    if hasattr(image, "__array__"):
        array = np.asarray(image)
        first = array.ndim == 3 and array.shape[2] not in _CHANNELS and array.shape[0] in _CHANNELS
        return _from_array(array, channels_first=first, kind="an array")
    raise ValueError(f"{_ACCEPTED}; this is a {type(image).__name__}")


def _from_file(given: str | os.PathLike[str], decoding: Decoding) -> Image.Image:
    path = Path(given).expanduser()
    if not str(given):
        raise ValueError(f"the path of an image is empty; {_ACCEPTED}")
    if str(given).lower().startswith(("http:/", "https:/")):
        raise ValueError(f"{given}: is a URL; download it and give the path, or the bytes")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give its files: sorted(Path({str(path)!r}).glob('*.jpg'))")
    try:
        return read_image(path, decoding)
    except Exception as error:  # a decoder may raise anything on a broken file
        raise ValueError(f"{path}: {reason(error)}") from error


def _from_array(values: np.ndarray, channels_first: bool, kind: str) -> Image.Image:
    shape = "x".join(map(str, values.shape))
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ValueError(f"{kind} of {shape or 'one number'} is no image; {_ACCEPTED}")
    if channels_first:
        values = np.moveaxis(values, 0, 2)
    if values.ndim == 3 and values.shape[2] not in _CHANNELS:
        raise ValueError(f"{kind} of {shape} has {values.shape[2]} channels; give 1, 3 or 4")
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    values = np.ascontiguousarray(values)
    if values.dtype == np.uint16:
        return opaque(scaled_to_bytes(values.astype(np.uint32)))
    if values.dtype != np.uint8:
        values = _bytes(values, kind)
    return opaque(Image.fromarray(values))


def _bytes(values: np.ndarray, kind: str) -> np.ndarray:
    """Booleans, numbers 0..1 and whole numbers 0..255 as bytes."""
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{kind} of {values.dtype} is no image; {_ACCEPTED}")
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind in "iu" and low >= 0 and high <= 255:
        return values.astype(np.uint8)
    if values.dtype.kind == "f" and low >= -1e-6 and high <= 1 + 1e-6:
        return np.round(values.clip(0, 1) * 255).astype(np.uint8)
    rule = "0..1" if values.dtype.kind == "f" else "0..255"
    hint = "; is it normalised already? Give it as it was before" if low < 0 else ""
    hint = "; divide it by 255" if values.dtype.kind == "f" and low >= 0 and 1 < high <= 255 else hint
    raise ValueError(f"the values of {kind} ({values.dtype}) lie in {low:.4g}..{high:.4g}, not in {rule}{hint}")
