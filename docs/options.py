"""Every option with its type, its unit, its range and its default; run, it writes docs/options.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bbframe.app.composition import composition, plain_data
from bbframe.app.hydra_settings import choices
from bbframe.app.option_help import meaning_of, option_hints
from bbframe.auto import list_backbones
from bbframe.schema import spell

PAGE = Path(__file__).resolve().parent / "options.md"
DETECTION = ("task=detection",)
FILES = ("data.train_images=images", "data.train_annotations=train.json")
# what must be given with a choice
NEEDED = {
    "data=image_folder": ("data.root=photos",),
    "data=digit_scenes": DETECTION,
    "data=coco": (*DETECTION, *FILES),
    "data=voc": (*DETECTION, "data.root=VOC2012"),
    "head=fcos": DETECTION,
    "head=fcos_small": DETECTION,
    "head=retinanet": DETECTION,
    "head=faster_rcnn": DETECTION,
    "head=mask_rcnn": (*DETECTION, "data=coco", *FILES),
}
GIVEN = {override.partition("=")[0] for needed in NEEDED.values() for override in needed if "data." in override}
GROUPS = ("trainer", "task", "data", "head", "optim", "schedule", "logger")


def page() -> str:
    """The page: a table for what every run has, and one for each choice of a group."""
    lines = ["# Options", ""]
    lines += ["Made by `python docs/options.py` from the declarations that check every configuration.", ""]
    lines += ["`python train.py --help KEY` prints a row for the configuration that is typed before it.", ""]
    with composition() as compose:
        lines += _table("Every run", "", plain_data(compose, []))
        every = {**{group: choices()[group] for group in GROUPS}, "backbone": list_backbones()}
        for group, name in ((group, name) for group, names in every.items() for name in names):
            choice = f"{group}={name}"
            lines += _table(f"`{choice}`", f"{group}.", plain_data(compose, [*NEEDED.get(choice, ()), choice]))
    return "\n".join(lines).rstrip() + "\n"


def _table(title: str, prefix: str, config: Mapping[str, Any]) -> Iterator[str]:
    rows = [row for key, hint in option_hints(config).items() if (row := _row(prefix, key, hint, config))]
    yield from (f"## {title}", "", "| option | type | default | meaning |", "|---|---|---|---|", *rows, "")


def _row(prefix: str, key: str, hint: Any, config: Mapping[str, Any]) -> str | None:
    rest = key.removeprefix(prefix)
    own = key.startswith(prefix) if prefix else "." not in key
    if not own or (rest == "name" and prefix not in ("", "backbone.")):
        return None
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):  # a row for each of its keys follows
        return None
    default = "to be given" if key in GIVEN else f"`{json.dumps(value, ensure_ascii=False)}`"
    cells = [f"`{key}`", spell(hint), default, " ".join(meaning_of(config, key))]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
