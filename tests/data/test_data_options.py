"""The configuration files and the dataclasses say the same, and refuse the same."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from bbframe.registry import find, names, parse_part

CONF = Path(__file__).parents[2] / "conf" / "data"
NEEDED = {
    "image_folder": {"root": "somewhere"},
    "coco": {"train_images": "somewhere", "train_annotations": "a.json"},
    "voc": {"root": "somewhere"},
}


def options(name="digits", **changes):
    return parse_part("data", {"name": name} | NEEDED.get(name, {}) | changes, "data")


@pytest.mark.parametrize("name", names("data"))
def test_yaml_and_dataclass_agree(name):
    data = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    data.pop("defaults", None)  # a detector, for data with boxes
    assert set(data) == {field.name for field in fields(find("data", name).options)}
    assert set(data["augment"]) == {field.name for field in fields(type(options(name).augment))}
    assert parse_part("data", data | NEEDED.get(name, {}), "data") == options(name)


@pytest.mark.parametrize("name", names("data"))
def test_every_option_is_explained_in_its_yaml(name):
    lines = (CONF / f"{name}.yaml").read_text().splitlines()
    known = ("name:", "defaults:")
    unexplained = [line for line in lines if ":" in line and "#" not in line and not line.startswith(known)]
    assert unexplained == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "data: batch_size=0 must be an integer within 1..65536 images"),
        ({"batchsize": 8}, "data: unknown option 'batchsize'; did you mean 'batch_size'?"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"timeout": 0}, "timeout=0"),
        ({"image_size": 0}, "image_size=0"),
        (
            {"image_size": [32, 0]},
            "image_size=[32, 0] must be an integer within 1..16384 pixels or a list of 2 integers within",
        ),
        ({"image_size": [32]}, "image_size"),
        ({"mean": [0.5, 0.5]}, "mean=(0.5, 0.5) must be 1 or 3 numbers"),
        ({"std": [0.5, 0.0, 0.5]}, "data: std[1]=0.0 must be a number above 0 and at most 1"),
        ({"interpolation": "cubic"}, "did you mean 'bicubic'?"),
        ({"augment": {"flipp": True}}, "unknown option 'flipp'; did you mean 'flip'?"),
        ({"augment": {"crop_scale": [0.5, 0.1]}}, "augment.crop_scale=(0.5, 0.1)"),
        ({"augment": {"crop_ratio": [0.0, 1.0]}}, "augment.crop_ratio"),
        ({"augment": {"degrees": 200.0}}, "augment.degrees=200.0"),
        ({"augment": {"translate": 1.0}}, "augment.translate=1.0"),
        (
            {"augment": {"color_jitter": [0.4, 0.4, 0.4, 0.6]}},
            "augment.color_jitter[3]=0.6 must be a number within 0..0.5",
        ),
        ({"augment": {"auto_augment": "randaug"}}, "did you mean 'randaugment'?"),
        ({"augment": {"random_erasing": 1.5}}, "augment.random_erasing=1.5"),
        ({"augment": {"mixup": -0.1}}, "augment.mixup=-0.1"),
        ({"augment": {"cutmix": -0.1}}, "augment.cutmix=-0.1"),
        ({"name": "image_folder", "root": None}, "data: root=None must be the folder of your images"),
        ({"name": "image_folder", "val_fraction": 0.0}, "val_fraction=0.0"),
        ({"name": "image_folder", "test_fraction": 1.0}, "test_fraction=1.0"),
        ({"name": "image_folder", "val_fraction": 0.9}, "leave nothing for training"),
        ({"name": "image_folder", "max_errors": -1}, "max_errors=-1"),
        ({"name": "image_folder", "on_error": "ignore"}, "on_error='ignore'; choose from: raise, skip"),
        ({"name": "coco", "min_size": 0}, "data: min_size=0 must be an integer within 1..16384 pixels"),
        ({"name": "coco", "max_size": 700}, "data: max_size=700 must be at least min_size"),
        ({"name": "coco", "augment": {"min_sizes": [800, 1500]}}, "data: max_size=1333 must be at least min_size"),
        (
            {"name": "coco", "augment": {"min_sizes": []}},
            "data: augment.min_sizes=[] must be a list of integers within",
        ),
        (
            {"name": "coco", "augment": {"crop_size": [0, 9]}},
            "data: augment.crop_size[0]=0 must be an integer within 1..16384",
        ),
        ({"name": "coco", "augment": {"scale_jitter": [0.5, 2]}}, "needs augment.crop_size, to fit into"),
        (
            {"name": "coco", "augment": {"scale_jitter": [0, 2], "crop_size": [9, 9]}},
            "scale_jitter[0]=0 must be a number above 0",
        ),
        (
            {"name": "coco", "augment": {"scale_jitter": [1, 2], "crop_size": [9, 9], "min_sizes": [9]}},
            "data: augment.min_sizes=(9,) must be null beside scale_jitter",
        ),
        (
            {"name": "coco", "augment": {"color_jitter": [0.4, 0.4, 0.4, 0.6]}},
            "augment.color_jitter[3]=0.6 must be a number within 0..0.5",
        ),
        ({"name": "coco", "augment": {"mixup": 0.2}}, "unknown option 'mixup'"),
        ({"name": "coco", "train_annotations": None}, "train_annotations=None must be the JSON file of your train"),
        ({"name": "coco", "train_images": None}, "train_images=None must be the folder of your train images"),
        ({"name": "coco", "val_images": "x"}, "val_annotations=None must be the JSON file of your val images"),
        ({"name": "coco", "test_annotations": "x"}, "test_images=None must be the folder of your test images"),
        (
            {"name": "coco", "val_images": "x", "val_annotations": "x", "val_fraction": 0.1},
            "val_fraction=0.1 must be null beside val_annotations",
        ),
        ({"name": "coco", "val_fraction": 0.9}, "leave nothing for training"),
        ({"name": "voc", "root": None}, "data: root=None must be the folder with Annotations/"),
        ({"name": "voc", "val_fraction": 0.1}, "val_fraction=0.1 must be null beside val_set"),
        ({"name": "digit_scenes", "val_scenes": 0}, "data: val_scenes=0 must be an integer within 1..100000"),
        ({"name": "digit_scenes", "num_digits": [0, 3]}, "data: num_digits[0]=0 must be an integer within 1..100"),
        ({"name": "digit_scenes", "num_digits": [3, 1]}, "data: num_digits=(3, 1) must rise from 1 or more"),
        ({"name": "digit_scenes", "digit_size": [4, 9]}, "data: digit_size[0]=4 must be an integer within 8..1024"),
        ({"name": "digit_scenes", "digit_size": [30, 9]}, "data: digit_size=(30, 9) must rise from 8 pixels"),
        ({"name": "digit_scenes", "image_size": [96, 39]}, "image_size=(96, 39) must be at least the largest digit"),
    ],
)
def test_a_bad_value_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match="data") as caught:
        options(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "digits"}, (42, 42)),
        ({"name": "image_folder"}, (224, 192)),
        ({"name": "image_folder", "image_size": 64}, (64, 64)),
        ({"name": "digit_scenes"}, (96, 96)),
        ({"name": "digit_scenes", "image_size": [64, 128], "min_size": 48}, (64, 128)),
        ({"name": "coco"}, (800, 1067)),
        ({"name": "coco", "max_size": 900}, (800, 900)),
        ({"name": "voc", "min_size": 300, "max_size": None}, (300, 400)),
        ({"name": "voc", "min_size": None}, (480, 640)),
        ({"name": "voc", "min_size": None, "max_size": 200}, (200, 200)),
    ],
)
def test_all_options_say_at_which_size_costs_are_counted(changes, expected):
    assert options(**changes).sides((224, 192), 14) == expected


def test_checking_options_needs_nothing_heavy():
    heavy = {"torchvision", "lightning", "sklearn", "PIL"}
    code = f"import sys, bbframe.data; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
