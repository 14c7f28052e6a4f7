"""The preprocessing of a checkpoint's images, from `preprocessor_config.json` or from timm's `pretrained_cfg`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bbframe.schema import checked_value, parse

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
