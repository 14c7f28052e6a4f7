"""The small networks of `rank_trust`, one of each architecture, and plain loops that pretrain and fine-tune them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bbframe
from bbframe.auto import backbone_class
from bbframe.heads.classifier import MultiLevelHead
from bbframe.heads.head_options import ClassifierOptions, FCOSOptions
from bbframe.heads.one_stage import FCOSDetector

VIT: dict[str, Any] = {"patch_size": 8, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
SWIN: dict[str, Any] = {"patch_size": 4, "embed_dim": 32, "depths": (1, 2), "num_heads": (2, 4), "window_size": 4}
PATHS: dict[str, Any] = {"drop_path_rate": 0.0}
NETWORKS: dict[str, dict[str, Any]] = {
    "beit": VIT
    | PATHS
    | {"intermediate_size": 256, "use_absolute_position_embeddings": True, "layer_scale_init_value": 1.0}
    | {"use_relative_position_bias": True, "initializer_range": 0.05},
    "bit": {"embedding_size": 16, "hidden_sizes": (32, 64, 96, 128), "depths": (1, 1, 1, 1), "num_groups": 8},
    "convnext": {"patch_size": 4, "hidden_sizes": (32, 64, 128), "depths": (1, 2, 1), "layer_scale_init_value": 0.1},
    "convnextv2": {"patch_size": 4, "hidden_sizes": (24, 48, 96), "depths": (1, 2, 1)},
    "dinat": PATHS
    | {"embed_dim": 16, "depths": (1, 2, 1), "num_heads": (1, 2, 4), "kernel_size": 3}
    | {"dilations": ((2,), (1, 1), (1,))},
    "dinov2": VIT,
    "dinov2_with_registers": VIT | {"hidden_size": 48},
    "dinov3_convnext": {"hidden_sizes": (24, 48, 96), "depths": (1, 1, 2), "layer_scale_init_value": 0.1},
    "dinov3_vit": VIT | {"intermediate_size": 256, "num_register_tokens": 4, "key_bias": True},
    "focalnet": PATHS
    | {"patch_size": 4, "embed_dim": 24, "depths": (1, 2, 1)}
    | {"focal_levels": (2, 2, 2), "focal_windows": (3, 3, 3)},
    "hgnet_v2": {"stem_channels": (3, 16, 16), "stage_numb_of_layers": (2, 2, 2)}
    | {"stage_in_channels": (16, 32, 64), "stage_mid_channels": (16, 16, 32), "stage_out_channels": (32, 64, 128)}
    | {"stage_num_blocks": (1, 1, 1), "stage_downsample": (False, True, True), "stage_kernel_size": (3, 3, 5)}
    | {"stage_light_block": (False, True, True), "use_learnable_affine_block": True},
    "hiera": {"embed_dim": 32, "depths": (1, 2), "num_heads": (1, 2), "num_query_pool": 1, "masked_unit_size": 4}
    | {"masked_unit_attention": (True, False), "initializer_range": 0.05},
    "lw_detr_vit": VIT | {"num_windows": 4, "window_block_indices": (0, 2), "cae_init_values": 1.0},
    "maskformer_swin": SWIN | PATHS | {"use_absolute_embeddings": True, "initializer_range": 0.05},
    "nat": PATHS | {"embed_dim": 24, "depths": (1, 2, 1), "num_heads": (1, 2, 4), "kernel_size": 3},
    "pixio": VIT | {"hidden_size": 80, "n_cls_tokens": 2},
    "pvt_v2": {"depths": (1, 2), "hidden_sizes": (32, 64), "patch_sizes": (7, 3), "patch_strides": (4, 2)}
    | {"num_attention_heads": (1, 2), "sr_ratios": (2, 1), "mlp_ratios": (4, 4), "initializer_range": 0.05},
    "resnet": {"embedding_size": 16, "hidden_sizes": (16, 32, 64, 128), "depths": (1, 1, 1, 1), "layer_type": "basic"},
    "rf_detr_dinov2": VIT | {"num_windows": 2, "window_block_indexes": (0, 2)},
    "rt_detr_resnet": {"embedding_size": 16, "hidden_sizes": (24, 48, 64, 96), "depths": (1, 1, 1, 1)}
    | {"layer_type": "basic"},
    "swin": SWIN | PATHS | {"embed_dim": 48, "use_absolute_embeddings": True, "initializer_range": 0.05},
    "swinv2": SWIN | PATHS | {"pretrained_window_sizes": (0, 0)},
    "vitdet": VIT | {"window_block_indices": (0, 2), "window_size": 4, "use_relative_position_embeddings": True},
    "vitpose_backbone": VIT | {"hidden_size": 96},
}
BATCH = 32


def network(name: str, side: int, seed: int) -> Any:
    """An untrained network of NETWORKS for images of `side` pixels, all its stages but the stem selected."""
    torch.manual_seed(seed)
    config_class = backbone_class(name).config_class
    sides = {field: side for field in ("image_size", "pretrain_image_size") if field in config_class.field_names()}
    config = config_class.from_dict(NETWORKS[name] | sides)
    config.out_features = [stage for stage in config.stage_names if stage != "stem"]
    return bbframe.AutoBackbone.from_config(config)


def parameters(net: nn.Module) -> int:
    """How many numbers the network learns."""
    return sum(parameter.numel() for parameter in net.parameters())


def head(net: Any, stages: Sequence[int], classes: int) -> nn.Module:
    """A linear layer on the joined averages of the maps at these places among the selected ones."""
    channels, strides = ([values[i] for i in stages] for values in (net.channels, net.strides))
    return MultiLevelHead(ClassifierOptions(name="multi_level"), channels, strides, classes)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a network learns; the rate rises over a tenth of the steps and falls to 0."""

    epochs: int
    rate: float = 1e-3
    decay: float = 0.05
    batch: int = BATCH


def train(
    parts: Sequence[nn.Module], loss: Callable[[Tensor], Tensor], rows: int, schedule: Schedule, seed: int
) -> None:
    """Train the parts together with AdamW; `loss` takes the places (b,) of the images of a batch."""
    weights = [weight for part in parts for weight in part.parameters() if weight.requires_grad]
    steps = schedule.epochs * max(1, rows // schedule.batch)
    optimizer = torch.optim.AdamW(weights, lr=schedule.rate, weight_decay=schedule.decay)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(seed)
    for part in parts:
        part.train()
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < min(schedule.batch, rows):
            order = torch.randperm(rows, generator=generator)
        batch, order = order[: schedule.batch], order[schedule.batch :]
        optimizer.zero_grad(set_to_none=True)
        loss(batch).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        rates.step()
    for part in parts:
        part.eval()


def shifted(x: Tensor, most: int) -> Tensor:
    """Every image (B, C, H, W) moved by up to `most` pixels each way, with the ground's value coming in."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (most, most, most, most), value=-1.0)
    moves = torch.randint(0, 2 * most + 1, (len(x), 2)).tolist()
    return torch.stack([each[:, a : a + height, b : b + width] for each, (a, b) in zip(padded, moves, strict=True)])


def train_classifier(
    net: Any, stages: Sequence[int], images: Tensor, labels: Tensor, classes: int, schedule: Schedule, seed: int
) -> nn.Module:
    """Train the network in place with a new head on some stages; the head."""
    torch.manual_seed(seed)
    read = head(net, stages, classes)

    def loss(batch: Tensor) -> Tensor:
        maps = net(shifted(images[batch], images.shape[-1] // 16)).feature_maps
        return F.cross_entropy(read([maps[i] for i in stages]), labels[batch])

    train([net, read], loss, len(images), schedule, seed)
    return read


@torch.no_grad()
def accuracy(net: Any, read: nn.Module, stages: Sequence[int], images: Tensor, labels: Tensor) -> float:
    """The share of images, in percent, that get their label."""
    right = 0
    for x, y in zip(images.split(128), labels.split(128), strict=True):
        maps = net(x).feature_maps
        right += int((read([maps[i] for i in stages]).argmax(1) == y).sum())
    return 100.0 * right / len(images)


@torch.no_grad()
def stage_features(net: Any, images: Tensor) -> list[np.ndarray]:
    """The averages (n, C) float32 of each selected map."""
    blocks = [[each.mean(dim=(2, 3)).numpy() for each in net(x).feature_maps] for x in images.split(128)]
    return [np.concatenate(block) for block in zip(*blocks, strict=True)]


@torch.no_grad()
def box_features(net: Any, images: Tensor, boxes: Sequence[Tensor]) -> list[np.ndarray]:
    """The averages (boxes, C) float32 of each selected map over true boxes (RoI align), xyxy in pixels."""
    from torchvision.ops import roi_align

    found: list[list[np.ndarray]] = []
    for start in range(0, len(images), 64):
        maps, inside = net(images[start : start + 64]).feature_maps, list(boxes[start : start + 64])
        pooled = [
            roi_align(x, inside, 7, 1.0 / stride, sampling_ratio=2, aligned=True).mean(dim=(2, 3)).numpy()
            for x, stride in zip(maps, net.strides, strict=True)
        ]
        found.append(pooled)
    return [np.concatenate(block) for block in zip(*found, strict=True)]


def train_detector(
    net: Any, images: Tensor, targets: Sequence[dict[str, Tensor]], classes: int, schedule: Schedule, seed: int
) -> FCOSDetector:
    """Train the network in place with a small FCOS on the maps of its own strides; the detector."""
    torch.manual_seed(seed)
    options = FCOSOptions(name="fcos", channels=32, num_convs=1, extra_levels=0)
    places = detector_stages(net)
    channels, strides = ([values[i] for i in places] for values in (net.channels, net.strides))
    detector = FCOSDetector(options, channels, strides, classes)
    size = (images.shape[-2], images.shape[-1])

    def loss(batch: Tensor) -> Tensor:
        maps = net(images[batch]).feature_maps
        losses = detector([maps[i] for i in places], [size] * len(batch), [targets[i] for i in batch.tolist()])
        assert isinstance(losses, dict)
        return torch.stack(list(losses.values())).sum()

    train([net, detector], loss, len(images), schedule, seed)
    return detector


def detector_stages(net: Any) -> list[int]:
    """The last stage of each stride up to 16: what a detector of small scenes reads."""
    last = {stride: place for place, stride in enumerate(net.strides) if stride <= 16}
    return sorted(last.values())


@torch.no_grad()
def mean_precision(net: Any, detector: FCOSDetector, images: Tensor, targets: Sequence[dict[str, Tensor]]) -> float:
    """The mean average precision at an overlap of 0.5, in percent."""
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(iou_thresholds=[0.5], backend="faster_coco_eval")
    places, size = detector_stages(net), (images.shape[-2], images.shape[-1])
    for start in range(0, len(images), 64):
        maps = net(images[start : start + 64]).feature_maps
        found = detector([maps[i] for i in places], [size] * len(maps[0]))
        metric.update(found, list(targets[start : start + 64]))
    return 100.0 * float(metric.compute()["map_50"])


def fresh(net: Any) -> Any:
    """A copy to train, so that the pretrained one serves again."""
    return copy.deepcopy(net)
