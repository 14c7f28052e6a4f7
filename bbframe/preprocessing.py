"""The preprocessing of a checkpoint's images, from `preprocessor_config.json` or from timm's `pretrained_cfg`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from bbframe.schema import Pixels, checked_value, parse

if TYPE_CHECKING:
    from PIL import Image

P = TypeVar("P", bound="Preprocessing")
# PIL's resampling codes, by which `preprocessor_config.json` states the interpolation
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_LARGEST = 16384  # pixels along a side
# what ours cannot do to an image
_REFUSED = {
    "do_resize": (False, "leaves images of any size, which make no batch"),
    "do_flip_channel_order": (True, "wants blue before red"),
    "do_grayscale": (True, "wants images without colour"),
}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Pixels in [0, 1] are resized, cropped and normalised channel by channel: (x - mean) / std.

    Call it on images; training, prediction and exported files see what it returns. It makes as many channels as there
    are values of `mean`, 1 or 3.
    `size` is the (height, width) that the network sees. With `crop_mode="center"` the shorter side is first resized
    to `size / crop_pct`, then the centre is cut out; with "squash" both sides are resized to `size`, whatever the
    aspect ratio. The defaults are those of ImageNet.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    size: tuple[int, int] = (224, 224)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    crop_pct: float = 0.875
    crop_mode: Literal["center", "squash"] = "center"

    def __post_init__(self) -> None:
        cover = max(self.size) / self.crop_pct if self.crop_pct > 0 else math.inf
        if min(self.size) < 1 or not cover <= _LARGEST:
            raise ValueError(
                f"size={list(self.size)} with crop_pct={self.crop_pct} must be 1 to {_LARGEST} pixels before the crop"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))) or not all(value > 0 for value in self.std):
            raise ValueError(f"mean={list(self.mean)} must be finite, std={list(self.std)} above 0 too")

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        fit = "squashed" if self.crop_mode == "squash" else f"center crop {self.crop_pct:.4g}"
        return f"{self.size[0]} x {self.size[1]} pixels, {self.interpolation}, {fit}, mean {mean}, std {std}"

    def __call__(self, images: Any) -> Tensor:
        """What the network takes: a float32 tensor (C, H, W) for one image, (B, C, H, W) for several.

        An image is a PIL image, a path, an array (H, W) or (H, W, C) or a tensor (C, H, W), with bytes 0..255 or
        floating-point numbers 0..1, RGB if it has colours; several are a list of them or a batch. Raises ValueError
        for anything else, and for several images that do not become equally large.
        """
        from bbframe.imaging.image_input import as_pictures

        pictures, single = as_pictures(images)
        inputs = [self.prepared(picture) for picture in pictures]
        if single:
            return inputs[0]
        if sizes := {tuple(x.shape[1:]) for x in inputs[1:] if x.shape != inputs[0].shape}:
            (height, width), (first, second) = next(iter(sizes)), inputs[0].shape[1:]
            raise ValueError(
                f"preprocessing: images become {first} x {second} and {height} x {width} pixels, which make no batch; "
                "prepare them one by one"
            )
        return torch.stack(inputs)

    def prepared(self, image: Image.Image) -> Tensor:
        """What the network takes of a PIL image in mode L or RGB that is upright: (C, H, W) float32."""
        return self.normalised(self.pixels(image))

    def pixels(self, image: Image.Image) -> Tensor:
        """The bytes of a PIL image once resized and cropped: (C, H, W) uint8. Raises ValueError as a call does."""
        from bbframe.imaging.image_fit import Fit

        return self._to_tensor(Fit(self)(image))

    def normalised(self, pixels: Tensor) -> Tensor:
        """Bytes (..., C, H, W) as normalised float32."""
        from bbframe.imaging.image_fit import normalise

        return normalise(pixels, torch.tensor(self.mean), torch.tensor(self.std))

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """By which (x, y) boxes in an image of a (width, height) are multiplied; nothing but (1, 1) without boxes."""
        return 1.0, 1.0

    def for_channels(self: P, num_channels: int) -> P:
        """The same for images of 1 or 3 channels; the mean and std of colours are averaged for a single one."""
        from bbframe.imaging.image_fit import normalisation

        mean, std = (normalisation(values, num_channels) for values in (self.mean, self.std))
        return self if (mean, std) == (self.mean, self.std) else replace(self, mean=mean, std=std)

    def _to_tensor(self, image: Image.Image) -> Tensor:
        from bbframe.imaging.image_fit import ToTensor

        if len(self.mean) not in (1, 3):
            raise ValueError(
                f"preprocessing: images have 1 or 3 channels, and the network takes {len(self.mean)}; "
                "make its tensors yourself: (pixels / 255 - mean) / std"
            )
        return ToTensor(len(self.mean))(image)

    @staticmethod
    def refused(data: Mapping[str, Any]) -> str | None:
        """Why images cannot be prepared as a `preprocessor_config.json` says; None when they can."""
        for key, (bad, why) in _REFUSED.items():
            if data.get(key) is bad:
                return f"{key}={json.dumps(bad)} {why}; edit that file in a local copy of the checkpoint, or remove it"
        return None

    @classmethod
    def from_hub(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Read a `preprocessor_config.json`, whichever form its `size` has.

        A plain number is the side of a square to squash to, unless there is a crop; then it is the shorter side.
        Raises ValueError for values of a wrong type.
        """
        size, crop_pct = data.get("size") or 224, data.get("crop_pct")
        crop = data.get("crop_size") if data.get("do_center_crop") else None
        target = _sides(size)
        squash = crop_pct is None and not (isinstance(size, Mapping) and "shortest_edge" in size)
        if crop is not None:
            edge, target, squash = min(target), _sides(crop), False
            crop_pct = crop_pct or min(target) / edge
        elif crop_pct is not None and min(target) >= 384:
            squash = True  # ConvNeXt's processor resizes without a crop from 384 pixels on
        resample = data.get("resample")
        normalize = data.get("do_normalize") is not False
        mean = data.get("image_mean") or cls.mean if normalize else (0.0,) * 3
        std = data.get("image_std") or cls.std if normalize else (1.0,) * 3
        scale, offset = _rescaling(data)
        if (scale, offset) != (1.0, 0.0):  # (scale * x - offset - mean) / std in terms of pixels x in [0, 1]
            mean, std = checked_value(
                [mean, std], tuple[tuple[float, ...], ...], "preprocessor_config.json: image_mean"
            )
            mean, std = [(value + offset) / scale for value in mean], [value / scale for value in std]
        read = {
            "mean": mean,
            "std": std,
            "size": target,
            "interpolation": "bicubic" if resample is None else _RESAMPLE.get(resample, resample),
            "crop_pct": 1.0 if squash or crop_pct is None else crop_pct,
            "crop_mode": "squash" if squash else "center",
        }
        return parse(cls, read, "preprocessor_config.json")

    @classmethod
    def from_timm(cls, cfg: Mapping[str, Any]) -> Preprocessing:
        """Read the entries of timm's `pretrained_cfg`; `input_size` there is (channels, height, width)."""
        return cls(
            mean=tuple(cfg.get("mean") or cls.mean),
            std=tuple(cfg.get("std") or cls.std),
            size=tuple((cfg.get("input_size") or (3, 224, 224))[-2:]),
            interpolation=cfg.get("interpolation") or "bicubic",
            crop_pct=float(cfg.get("crop_pct") or 0.875),
            crop_mode="squash" if cfg.get("crop_mode") == "squash" else "center",
        )

    def to_hub(self) -> dict[str, Any]:
        """The `preprocessor_config.json` for transformers' image processors."""
        height, width = self.size
        data: dict[str, Any] = {
            "do_resize": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "resample": {name: code for code, name in _RESAMPLE.items()}[self.interpolation],
        }
        if self.crop_mode == "squash":
            return {"image_processor_type": "ViTImageProcessor", "size": {"height": height, "width": width}, **data}
        return {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": int(min(self.size) / self.crop_pct + 1e-6)},  # rounded down, as timm does
            "do_center_crop": True,
            "crop_size": {"height": height, "width": width},
            "crop_pct": self.crop_pct,  # for ourselves: the sizes above are rounded
            **data,
        }


@dataclass(frozen=True, kw_only=True)
class BoxPreprocessing(Preprocessing):
    """The preprocessing of a detector: images keep their aspect ratio and are not cropped.

    The shorter side becomes `min_size` pixels unless the longer one would then exceed `max_size`, rounded down.
    Without `min_size` an image only shrinks, to fit `max_size`. `size` stands for a usual image and changes none.
    """

    min_size: Pixels | None = None
    max_size: Pixels | None = None

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        sides = f"shorter side {self.min_size or 'as it is'}, longer side at most {self.max_size or 'as it is'}"
        return f"{sides}, {self.interpolation}, mean {mean}, std {std}"

    def pixels(self, image: Image.Image) -> Tensor:
        from bbframe.imaging.image_fit import check_resized_size, resize, scaled_sides

        sides = scaled_sides(image.size, self.min_size, self.max_size)
        check_resized_size(image.size, sides)
        return self._to_tensor(resize(image, sides, self.interpolation))

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        from bbframe.imaging.image_fit import scaled_sides

        height, width = scaled_sides(size, self.min_size, self.max_size)
        return width / size[0], height / size[1]


def _rescaling(data: Mapping[str, Any]) -> tuple[float, float]:
    """By what a processor multiplies pixels in [0, 1], and what it then subtracts."""
    factor = data.get("rescale_factor")
    factor = 1 / 255 if factor is None else factor
    if data.get("do_rescale") is False:
        return 255.0, 0.0
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
        raise ValueError(f"preprocessor_config.json: rescale_factor={factor!r} must be above 0, such as {1 / 255}")
    scale = 255.0 * factor
    return 1.0 if abs(scale - 1) < 1e-5 else scale, 1.0 if data.get("rescale_offset") is True else 0.0


def _sides(size: Any) -> tuple[int, int]:
    """The (height, width) of a size as the Hub writes it: a number, a pair, or a mapping."""
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        return (edge, edge) if edge else (size["height"], size["width"])
    return (size, size) if isinstance(size, int) else (size[0], size[1])
