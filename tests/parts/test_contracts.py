"""Our own parts meet the contracts that `bbframe.testing` offers for a user's."""

from __future__ import annotations

import pytest
import torch

from bbframe.registry import KINDS, names
from bbframe.testing import check_backbone_contract, check_part
from tests.data.helpers import write, write_coco
from tests.tiny import names as architectures
from tests.tiny import tiny_config

FILES = ("image_folder", "coco", "voc")  # data sets that need files
PACKAGES = ("trackio",)  # what needs a package of that name: tests/run/test_loggers.py
PARTS = [
    (kind, name) for kind in KINDS if kind != "backbone" for name in names(kind) if name not in (*FILES, *PACKAGES)
]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_a_part_meets_the_contract_of_its_kind(kind, name):
    torch.manual_seed(0)
    check_part(kind, {"name": name})


@pytest.mark.parametrize("name", architectures())
def test_a_backbone_meets_its_contract(name):
    check_backbone_contract(tiny_config(name))


def test_data_sets_of_files_meet_theirs(tmp_path):
    for part in ("train", "val", "test"):
        for name in ("cat", "dog"):
            for i in range(3):
                write(tmp_path / "photos" / part / name / f"{i}.png", shade=i)
    folder = {"name": "image_folder", "root": str(tmp_path / "photos"), "num_workers": 0, "batch_size": 2}
    check_part("data", folder)
    write_coco(tmp_path, count=24)
    files = {"train_images": str(tmp_path / "train"), "train_annotations": str(tmp_path / "train.json")}
    check_part("data", {"name": "coco", "num_workers": 0, "batch_size": 2, **files})
