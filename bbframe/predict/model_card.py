"""The model card of a trained network: README.md with the metadata that the Hub reads, from what is known of a run."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping
from typing import Any

import bbframe
from bbframe.files import dump_yaml, visible
from bbframe.predict.trained_network import TrainedNetwork
from bbframe.predict.training_facts import PATH, TrainingFacts, public_overrides
from bbframe.report.tables import number

CLASSES = 200  # that a card lists
TITLES = {
    "accuracy": "Accuracy",
    "top5": "Top-5 accuracy",
    "f1": "F1, mean over classes",
    "mAP": "mAP, boxes, IoU 0.50 to 0.95",
    "mAP50": "mAP, boxes, IoU 0.50",
    "mask_mAP": "mAP, masks, IoU 0.50 to 0.95",
    "mask_mAP50": "mAP, masks, IoU 0.50",
}
PARTS = {"train": "training", "val": "validation", "test": "test"}


def model_card(network: TrainedNetwork, repository: str, licence: str | None = None) -> str:
    """The text of README.md for a network in `repository`: front matter, use, results, classes, data and limits."""
    facts = _as_text(network.facts)
    sections = [
        f"---\n{dump_yaml(_metadata(network, facts, repository, licence))}---",
        f"# {repository.rpartition('/')[2]}",
        _what(network, facts),
        _use(network, repository),
        _results(facts),
        _calibration(network, facts),
        _classes(network),
        _data(network, facts),
        _training(facts),
        _limits(network, facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _kind(network: TrainedNetwork) -> str | None:
    """What the Hub calls the task; None for one of a user's own."""
    if network.task_name == "detection":
        return "image-segmentation" if network.task.head_options.masks else "object-detection"
    return "image-classification" if network.task_name == "classification" else None


def _as_text(facts: TrainingFacts) -> TrainingFacts:
    """Facts whose texts are one line each, hold no markup and name no path: a saved folder may be anybody's."""

    def plain(text: str | None) -> str:
        return re.sub(r"[`<>\[\]()|*\\]", "", visible(str(text or "")).replace("\\n", " ")).strip()[:200]

    on_hub = facts.checkpoint and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", facts.checkpoint)
    return dataclasses.replace(
        facts,
        backbone=plain(facts.backbone),
        data=plain(facts.data),
        checkpoint=facts.checkpoint if on_hub else None,
        revision=plain(facts.revision) or None,
        test_part=plain(facts.test_part) or None,
        images={plain(part): count for part, count in facts.images.items()},
        overrides=tuple(visible(x).replace("```", "...") for x in public_overrides(facts.overrides)),
        versions={plain(name): plain(version) for name, version in facts.versions.items()},
    )


def _metadata(network: TrainedNetwork, facts: TrainingFacts, repository: str, licence: str | None) -> dict[str, Any]:
    kind = _kind(network)
    tags = ["bbframe", network.backbone.config.model_type, network.task.head_options.name]
    found: dict[str, Any] = {"library_name": "bbframe", "tags": list(dict.fromkeys(tags))}
    if kind:
        found["pipeline_tag"] = kind
    if licence:
        found["license"] = licence
    if facts.checkpoint:
        found["base_model"] = facts.checkpoint
    measured = [
        {"type": name, "name": TITLES[name], "value": round(value, 4)}
        for name, value in facts.test.items()
        if name in TITLES and value is not None
    ]
    if measured and kind:
        found["metrics"] = [metric["type"] for metric in measured]
        dataset = {"type": facts.data or "images", "name": f"{facts.data or 'images'}, {_part(facts)} images"}
        result = {"task": {"type": kind}, "dataset": dataset, "metrics": measured}
        found["model-index"] = [{"name": repository.rpartition("/")[2], "results": [result]}]
    return found


def _part(facts: TrainingFacts) -> str:
    return PARTS.get(facts.test_part or "test", str(facts.test_part))


def _what(network: TrainedNetwork, facts: TrainingFacts) -> str:
    does = {
        "image-classification": "says which of {} classes an image shows",
        "object-detection": "finds objects of {} classes in images",
        "image-segmentation": "finds objects of {} classes in images, with their masks",
    }.get(_kind(network) or "", "reads images of {} classes")
    name = facts.backbone or network.backbone.config.model_type
    weights = f" Its training began with the weights of `{facts.checkpoint}`" if facts.checkpoint else ""
    weights += f" at `{facts.revision[:12]}`." if weights and facts.revision else "." if weights else ""
    size = f" It has {facts.params / 1e6:.2f} M parameters." if facts.params else ""
    return (
        f"This network {does.format(len(network.class_names))}: `{name}` under a `{network.task.head_options.name}` "
        f"head, trained with bbframe.{weights}{size}"
    )


def _use(network: TrainedNetwork, repository: str) -> str:
    example = "photo.jpg"
    return f"""## Use

It needs the Python package `bbframe`.

```python
import bbframe

net = bbframe.load("{repository}")
print(net("{example}"))
```

`net` also takes PIL images, arrays and tensors, one or a list of them, of any size; `net.preprocessing` prepares them.
The backbone alone, for features: `bbframe.AutoBackbone.from_pretrained("{repository}")`. On a command line:
`bbframe predict run={repository} images=photos`."""


def _results(facts: TrainingFacts) -> str:
    rows = [(name, value) for name, value in facts.test.items() if name in TITLES and value is not None]
    if not rows:
        return "## Results\n\nThis network was not tested, or other weights of its run were."
    lines = ["| metric | value | 95 % interval |", "|---|---|---|"]
    for name, value in rows:
        ends = [ends.get(name) for ends in (facts.test_low, facts.test_high)]
        between = "" if None in ends else " to ".join(f"{end:.3f}" for end in ends)
        lines.append(f"| {TITLES[name]} | {value:.4f} | {between} |")
    count = f"{facts.test_images} {_part(facts)} images" if facts.test_images else f"{_part(facts)} images"
    note = "" if facts.test_part in (None, "test") else " They also chose the epoch, so that new images give less."
    return f"## Results\n\nOn {count}, intervals by bootstrap.{note}\n\n" + "\n".join(lines)


def _calibration(network: TrainedNetwork, facts: TrainingFacts) -> str:
    if network.task_name != "classification":
        return ""
    lines = []
    if (temperature := network.calibration.temperature) is not None:
        lines.append(
            f"Probabilities are calibrated on {network.calibration.images} validation images: scores are divided by a "
            f"temperature of {temperature:.3f}."
        )
    told: Mapping[str, float | None] = facts.calibration
    if (before := told.get("ece")) is not None:
        after = told.get("ece_scaled")
        less = "" if after is None else f", and {after:.3f} after the division"
        lines.append(f"The expected calibration error is {before:.3f}{less}.")
    if network.familiarity is not None:
        lines.append(
            "A result says `unfamiliar` for an image that is farther from the training images than 95 % of the "
            "validation images."
        )
    return "## Calibration\n\n" + " ".join(lines) if lines else ""


def _classes(network: TrainedNetwork) -> str:
    names = network.class_names
    shown = ", ".join(_cell(name) for name in names[:CLASSES])
    more = f" and {len(names) - CLASSES} more" if len(names) > CLASSES else ""
    return f"## Classes\n\n{len(names)}: {shown}{more}"


def _cell(name: str) -> str:
    """A class name that Markdown shows as it is."""
    plain = visible(name).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#|!~" else letter for letter in plain)


def _data(network: TrainedNetwork, facts: TrainingFacts) -> str:
    if not facts.data:
        return ""
    counts = ", ".join(f"{count} {PARTS.get(part, part)}" for part, count in facts.images.items())
    images = f": {counts} images" if counts else ""
    return f"## Data\n\nData set `{facts.data}`{images}. Images are prepared as follows: {network.preprocessing}."


def _training(facts: TrainingFacts) -> str:
    if not facts.overrides:
        return ""
    command = " \\\n    ".join(["bbframe train", *map(shlex.quote, facts.overrides)])
    dots = "Three dots stand for a path." if any(x.endswith(f"={PATH}") for x in facts.overrides) else ""
    seed = "" if facts.seed is None else f" Its seed was {facts.seed}."
    epochs = f" It ran for {facts.epochs} epoch{'s' * (facts.epochs > 1)}." if facts.epochs else ""
    macs = f" An image takes {number(facts.gmacs, '.3g')} GMACs." if facts.gmacs else ""
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items() if version)
    return (
        f"## Training\n\n```bash\n{command}\n```\n\n{f'{dots}{epochs}{seed}{macs}'.strip()}\n\n"
        f"Versions: {versions or f'bbframe {bbframe.__version__}'}."
    )


def _limits(network: TrainedNetwork, facts: TrainingFacts) -> str:
    known = "The results hold for images like those of its data set"
    classes = "An image of anything else gets one of its classes too."
    if network.task_name == "detection":
        classes = "Objects of other classes are not found, or taken for one of its own."
    few = facts.test_images is not None and facts.test_images < 100
    little = f" They come from {facts.test_images} images alone, so that they are rough." if few else ""
    return f"## Limits\n\n{known}; others may give worse ones.{little} {classes}"
