"""How a checkpoint wants its images: from the Hub's `preprocessor_config.json` or from timm's `pretrained_cfg`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# PIL's resampling codes, the form in which `preprocessor_config.json` states the interpolation
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


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

    @classmethod
    def from_hub(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Read a `preprocessor_config.json`, in any of the three forms of `size` that the Hub holds."""
        size, crop = data.get("size", 224), data.get("crop_size")
        edge = size.get("shortest_edge") if isinstance(size, Mapping) else size if isinstance(size, int) else None
        squash = edge is None and not data.get("do_center_crop", False)
        crop_pct = float(data.get("crop_pct") or 1.0)
        if edge is None and isinstance(size, Mapping):
            edge = min(size["height"], size["width"])
        if data.get("do_center_crop") and crop is not None:
            target = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
            crop_pct = min(target) / edge if edge else 1.0
        elif squash and isinstance(size, Mapping):
            target = (size["height"], size["width"])
        elif isinstance(size, (list, tuple)):
            target = (size[0], size[1])
        else:
            target = (edge, edge)
        if edge is not None and edge >= 384 and "crop_pct" in data:
            squash = True  # ConvNeXt's processor resizes without a crop from 384 pixels on
        normalize = data.get("do_normalize", True)
        return cls(
            mean=tuple(data.get("image_mean") or cls.mean) if normalize else (0.0,) * 3,
            std=tuple(data.get("image_std") or cls.std) if normalize else (1.0,) * 3,
            size=target,
            interpolation=_RESAMPLE.get(data.get("resample", 3), "bicubic"),  # type: ignore[arg-type]
            crop_pct=1.0 if squash else crop_pct,
            crop_mode="squash" if squash else "center",
        )

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
        """The `preprocessor_config.json` that makes transformers' image processors do the same."""
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
            "size": {"shortest_edge": round(min(self.size) / self.crop_pct)},
            "do_center_crop": True,
            "crop_size": {"height": height, "width": width},
            **data,
        }
