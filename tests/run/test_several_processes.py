"""Several processes compute what one computes, however they are started, and end together when one fails."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from bbframe.data.batch_order import TrainOrder
from tests.run.several_processes import (
    SCRIPT,
    difference,
    finished,
    killed_within_epoch,
    results,
    weight_difference,
)

pytestmark = pytest.mark.distributed

NETWORK = [
    "backbone=convnextv2_atto",
    "backbone.depths=[1,1,1,1]",
    "backbone.hidden_sizes=[8,16,24,32]",
    "data.num_workers=0",
    "optim.lr=0.002",
]
DIGITS = [*NETWORK, "data=digits", "trainer.limit_train_batches=20", "trainer.max_epochs=3"]
# few, because two detections of nearly the same score change places by the last bit of their scores
SOME_SCENES = ["data.train_scenes=48", "data.val_scenes=17", "data.test_scenes=19"]
FEW_SCENES = ["data.train_scenes=8", "data.val_scenes=5", "data.test_scenes=5"]
SCENES = [*NETWORK, "task=detection", "data=digit_scenes", "head.channels=32", "trainer.max_epochs=2"]
# the command line, and the images of an optimizer step
TASKS = {
    "classification": (DIGITS, 16),
    "fcos": ([*SCENES, "head=fcos", "head.num_convs=1", *SOME_SCENES], 8),
    "retinanet": ([*SCENES, "head=retinanet", "head.num_convs=1", *SOME_SCENES], 8),
    "faster_rcnn": ([*SCENES, "head=faster_rcnn", *FEW_SCENES], 8),
    "mask_rcnn": ([*SCENES, "head=mask_rcnn", *FEW_SCENES], 8),
}
# files in which numbers are rounded, so that the last digit may differ: of probabilities, and of boxes and scores
ROUNDED = {
    "/metrics.json/calibration/temperature": 1.01e-5,
    "/predictions.csv": 1.01e-6,
    "/predictions.json[]/bbox": 0.0101,
    "/predictions.json[]/score": 1.01e-5,
}


def check_equal(one, other, limit=1e-6):
    """Every number of two runs' results, whatever it counts."""
    for where, value in difference(results(one), results(other)).items():
        allowed = next((most for start, most in ROUNDED.items() if where.startswith(start)), limit)
        assert value <= allowed, (where, value)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def alone(place):
    """The folder of a task's run in one process, which is made once."""
    made = {}

    def folder(task):
        if task not in made:
            words, batch = TASKS[task]
            made[task] = finished("alone", [*words, f"data.batch_size={batch}"], place, f"alone_{task}")
            assert len(results(made[task])["metrics.csv"]) > 1
        return made[task]

    return folder


@pytest.mark.parametrize("way", ["lightning", "torchrun", "agents"])
def test_a_classifier_is_the_same_whoever_starts_its_processes(way, alone, place):
    words, batch = TASKS["classification"]
    folder = finished(way, [*words, f"data.batch_size={batch // 2}"], place, way)
    check_equal(alone("classification"), folder)
    assert weight_difference(alone("classification"), folder) < 1e-6
    said = json.loads((folder / "metrics.json").read_text())
    assert said["test_high"]["accuracy"] > said["test"]["accuracy"] > 0.3
    assert said["calibration"]["temperature"] > 0


@pytest.mark.parametrize("task", ["fcos", "retinanet", "faster_rcnn", "mask_rcnn"])
def test_a_detector_is_the_same_in_two_processes(task, alone, place):
    words, batch = TASKS[task]
    folder = finished("lightning", [*words, f"data.batch_size={batch // 2}"], place, f"two_{task}")
    check_equal(alone(task), folder)


WHOLE = [*NETWORK, "data=digits", "trainer.max_epochs=3", "data.batch_size=32"]


def devices(count):
    return ["trainer.accelerator=cpu", f"trainer.devices={count}", *(["trainer.strategy=ddp"] if count > 1 else [])]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (2, 1, "processes 1 (was 2): accumulate_grad_batches=2 and batches of 32 keep the global batch of 64"),
        (1, 2, "processes 2 (was 1): accumulate_grad_batches=1 and batches of 16 keep the global batch of 32"),
        (2, 3, "processes 3 (was 2): accumulate_grad_batches=1 and batches of 21 or 22 keep the global batch of 64"),
    ],
)
def test_a_run_goes_on_with_other_processes(before, after, said, place):
    way = "alone" if before == 1 else "lightning"
    whole = place / f"whole_{before}"
    if not whole.exists():
        finished(way, WHOLE, place, whole.name)
    steps = json.loads((whole / "metrics.json").read_text())["epochs"] and 1259 // (32 * before)
    name = f"cut_{before}_{after}"
    command = [str(SCRIPT), *WHOLE, "trainer.checkpoint_every=3", *devices(before), f"hydra.run.dir={place / name}"]
    last = killed_within_epoch([command], place, name, steps)
    words = [*WHOLE, f"ckpt_path={last}", *devices(after)]
    folder = finished("as typed", words, place, f"again_{before}_{after}")
    assert (folder / "train.log").read_text().count(said) == 1
    check_equal(whole, folder)
    assert weight_difference(whole, folder) < 1e-5


def write_images(root, broken=(), **counts):
    """Noise of two classes, class after class in turn; some files are cut to pieces in the middle."""
    random = np.random.default_rng(0)
    for part, count in counts.items():
        for number in range(count):
            file = root / part / "ab"[number % 2] / f"{number:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)
            if (part, number) in broken:
                content = bytearray(file.read_bytes())
                content[60:200] = bytes(140)
                file.write_bytes(content)
    return root


def of_images(root):
    size = ["data.image_size=32", "data.batch_size=4", "trainer.max_epochs=2", "data.verify=false"]
    return [*NETWORK, "data=image_folder", f"data.root={root}", "backbone.num_channels=3", *size]


def index_in_second_process(count):
    """The number of a file that process 1 of 2 reads in its first batch, where files are ordered by their class."""
    index = next(iter(TrainOrder(count, 4, 0, 1, 2)))[1][1]
    return [*range(0, count, 2), *range(1, count, 2)][index]


@pytest.mark.parametrize("way", ["lightning", "torchrun", "agents"])
def test_all_processes_end_when_one_fails_and_the_error_is_said_once(way, place):
    number = index_in_second_process(16)
    root = write_images(place / f"broken_{way}", {("train", number)}, train=16, val=4, test=4)
    folder = finished(way, of_images(root), place, f"fails_{way}", code=1)
    outputs = "\n".join(file.read_text() for file in place.glob(f"fails_{way}.*.txt"))
    said = [line for line in outputs.splitlines() if "cannot read" in line]
    assert len(said) == 1, outputs
    assert said[0].startswith("error: process 1: data: cannot read ")
    assert f"{number:03d}.png" in said[0]
    assert "cannot read" in (folder / "error.txt").read_text()
    assert not list(folder.glob("error.process_*"))


def test_unreadable_images_of_all_processes_are_counted_and_said_once(place):
    broken = {("train", 3), ("val", 1), ("val", 8), ("test", 0), ("test", 1), ("test", 3)}
    root = write_images(place / "skipped", broken, train=33, val=9, test=6)
    words = [*of_images(root), "data.on_error=skip"]
    one = finished("alone", [*words, "data.batch_size=8"], place, "skips_alone")
    two = finished("lightning", words, place, "skips_two")
    check_equal(one, two)
    for folder in (one, two):
        assert json.loads((folder / "metrics.json").read_text())["skipped"] == len(broken)
        log = (folder / "train.log").read_text()
        assert [log.count(f"{number:03d}.png (") for number in (3, 8, 0, 1)] == [2, 1, 1, 2]


@pytest.mark.parametrize(
    "network",
    [
        [],
        ["backbone=resnet18", "backbone.embedding_size=8", "backbone.hidden_sizes=[8,8,16,16]", "data.image_size=64"],
    ],
)
def test_a_part_may_have_fewer_images_than_processes(network, place):
    """Batch normalisation's networks wait for each other in every batch, others at the end of an epoch."""
    name = "one_image" + ("_norm" if network else "")
    root = write_images(place / f"data_{name}", train=16, val=2, test=3)
    words = [word for word in of_images(root) if network == [] or not word.startswith(("backbone", "data.image_size"))]
    folder = finished("lightning", [*words, *network, "trainer.limit_val_batches=1", "data.batch_size=1"], place, name)
    values = results(folder)["metrics.csv"]
    assert len(values) == 2
    assert all(float(value) == float(value) for row in values for value in row.values() if value)


def test_automatic_options_are_one_answer_for_all_processes(place):
    root = write_images(place / "data_auto", train=160, val=4, test=4)
    words = [*of_images(root), "data.batch_size=auto", "optim.lr=auto"]
    folder = finished("torchrun", words, place, "auto")
    found = json.loads((folder / "metrics.json").read_text())["found"]
    assert 0 < found["optim.lr"] < 10
    assert 1 <= found["data.batch_size"] <= 80
