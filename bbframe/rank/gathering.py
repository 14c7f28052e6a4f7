"""What is known of each candidate once its network has looked at the images: its features, its size and its cost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bbframe.data import make_data
from bbframe.data.data_module import DataModule
from bbframe.extraction.class_scores import one_hot
from bbframe.extraction.feature_set import MOST_PIXELS, FeatureSet, ImageChoice, common_images, extract, store_of
from bbframe.extraction.feature_store import FeatureStore
from bbframe.extraction.stage_pooling import StagePooling, make_with_all_stages
from bbframe.factory import BackboneOptions
from bbframe.files import write_text
from bbframe.rank.box_scores import box_targets
from bbframe.rank.candidates import Candidate
from bbframe.report.profile import count_parameters, gmacs
from bbframe.run.configuration import Configuration

FACTS = "facts.json"  # what was measured of a network, beside its features
TIMED_IMAGES, TIMED_PASSES = 32, 3


@dataclass
class Gathered:
    """A candidate's features, and its `facts` in the words of rank.json."""

    candidate: Candidate
    options: BackboneOptions
    features: FeatureSet
    facts: dict[str, Any]


@dataclass(frozen=True)
class CommonRows:
    """The rows that every backbone has features of: places of images, classes, boxes, and the number of classes."""

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray | None
    num_classes: int

    @property
    def several(self) -> bool:
        """Whether there are several classes to be told apart."""
        return len(np.unique(self.labels)) > 1

    @property
    def targets(self) -> np.ndarray:
        """What features are to explain (n, t): the classes or, where all objects have the same, their sizes."""
        if self.several or self.boxes is None:
            return one_hot(self.labels, self.num_classes)
        sizes = box_targets(self.boxes)
        spread = sizes.std(axis=0)
        return (sizes - sizes.mean(axis=0)) / np.where(spread > 0, spread, 1)


def open_images(plan: Configuration) -> DataModule:
    """The images of a configuration, whichever network looks at them; `prepared` makes them ready for one."""
    from bbframe.preprocessing import Preprocessing

    return make_data(plan.data, seed=plan.run.seed, preprocessing=Preprocessing(), num_channels=3)


def prepared(images: DataModule, plan: Configuration, pooling: StagePooling) -> DataModule:
    """The images of `open_images`, prepared as a network's checkpoint wants them."""
    net = pooling.net
    settings: dict[str, Any] = {
        "preprocessing": net.preprocessing,
        "num_channels": net.config.num_channels,
        "stride": max(net.strides),
    }
    if type(images).__module__.partition(".")[0] == "bbframe":
        return images.prepared_for(**settings)
    return make_data(plan.data, seed=plan.run.seed, **settings)  # a plugin's constructor may prepare them otherwise


def images_to_look_at(data: DataModule, part: str, count: int, seed: int) -> list[int]:
    """At most `count` images of a part, of each class its share, and two of it where there is room for two of each.

    In detection an image belongs to the rarest class in it. Which images of a class they are depends on the seed and
    their names alone, so that a larger count adds images to those of a smaller one.
    """
    from bbframe.data.seeds import derive

    images = data.parts[part]
    total = data.counts[part]
    if total <= count:
        return list(range(total))
    labels = _one_label_each(images, total)
    ranked: dict[int, list[int]] = {}
    for index in sorted(range(total), key=lambda i: derive(seed, images.name(i))):
        ranked.setdefault(labels[index], []).append(index)
    least = 2 if 2 * len(ranked) <= count else 1
    taken = {label: min(len(found), max(least, count * len(found) // total)) for label, found in ranked.items()}
    while (surplus := sum(taken.values()) - count) > 0:  # the larger classes give way to two of each small one
        most = max(taken, key=lambda label: (taken[label], label))
        taken[most] -= 1
    rest = sorted(ranked, key=lambda label: (-(count * len(ranked[label]) % total), label))
    for label in [label for label in rest if taken[label] < len(ranked[label])][: max(0, -surplus)]:
        taken[label] += 1
    return sorted(index for label, found in ranked.items() for index in found[: taken[label]])


def _one_label_each(images: Any, total: int) -> list[int]:
    if not hasattr(images, "boxes"):
        return [int(images.labels[i]) for i in range(total)]
    classes = np.asarray(images.classes)
    counts = np.bincount(classes) if len(classes) else np.zeros(1, int)
    return [min((int(c) for c in images.labels[i]), key=lambda c: (counts[c], c), default=-1) for i in range(total)]


def gather(
    candidate: Candidate,
    plan: Configuration,
    images: DataModule,
    choice: ImageChoice,
    root: Path,
    advance: Callable[[int], None] = lambda count: None,
) -> Gathered:
    """Look at the chosen images through a candidate's network, unless its features are known already.

    Raises ValueError for weights that cannot be had or do not fit, and whatever the network itself raises.
    """
    started = time.perf_counter()
    torch.manual_seed(plan.run.seed)
    device = torch.device("cuda" if torch.cuda.is_available() and plan.trainer.accelerator != "cpu" else "cpu")
    net = make_with_all_stages(plan.backbone).to(device)
    pooling = StagePooling(net, boxes=plan.task.name == "detection")
    data = prepared(images, plan, pooling)
    store = store_of(pooling, data, root)
    try:
        features = extract(pooling, data, choice, store, advance)
    finally:
        data.teardown("predict")
    if len(features.images) == 0 and choice.indices:
        raise ValueError("none of the images could be prepared for it, or none has a box")
    many = features.computed >= TIMED_IMAGES and features.boxes is None
    facts = _facts(candidate, plan, net, data, store, features.forward_seconds / features.computed if many else None)
    facts["seconds"] = round(time.perf_counter() - started, 3)
    facts["computed_images"], facts["forward_seconds"] = features.computed, round(features.forward_seconds, 3)
    return Gathered(candidate, plan.backbone, features, facts)


def _facts(
    candidate: Candidate, plan: Configuration, net: Any, data: DataModule, store: FeatureStore, seconds: float | None
) -> dict[str, Any]:
    """Size and cost; what has been measured on this machine is not measured again.

    `seconds` an image are those that its features have just taken, None where they are known already.
    """
    source, report = plan.backbone.source, net.load_report
    size = (net.config.num_channels, *data.image_size)
    threads = torch.get_num_threads()
    name = torch.cuda.get_device_name() if net.device.type == "cuda" else f"{threads} threads"
    path = store.folder / FACTS
    try:
        known = json.loads(path.read_text())
        before = dict(known)
    except (OSError, ValueError, TypeError):
        known, before = {}, {}
    if "gmacs" not in known:
        known["gmacs"] = round(gmacs(net, size), 6)
    if name not in known:
        known[name] = seconds_an_image(net, size) if seconds is None else round(seconds, 6)
    if known != before:
        with suppress(OSError):  # what is not kept is measured again
            write_text(path, json.dumps(known))
    untrained = report is None
    return {
        "name": candidate.name,
        "weights": None if untrained else report.source,
        "untrained": untrained,
        "revision": None if untrained else report.revision,
        "sha256": None if untrained else report.sha256,
        "source": source.source,
        "params": count_parameters(net),
        "gmacs": known["gmacs"],
        "image_size": list(data.image_size),
        "latency_seconds": known[name],
        "threads": threads,
    }


@torch.inference_mode()
def seconds_an_image(net: Any, shape: Sequence[int]) -> float:
    """The seconds of a forward pass for an image (C, H, W), in batches of 32 or fewer: the least of three."""
    count = max(1, min(TIMED_IMAGES, MOST_PIXELS // (shape[-1] * shape[-2])))
    pixels = torch.zeros(count, *shape, device=net.device)
    seconds = []
    for _ in range(TIMED_PASSES):
        began = time.perf_counter()
        net(pixels)
        if pixels.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return round(min(seconds) / count, 6)


def features_of_common_images(gathered: Sequence[Gathered], num_classes: int) -> CommonRows:
    """The rows of the images that every backbone has features of; each feature set is cut down to them."""
    digests = common_images([one.features for one in gathered])
    for one in gathered:
        one.features = one.features.of_images(digests)
    first = gathered[0].features
    return CommonRows(first.images, first.labels, first.boxes, num_classes)
