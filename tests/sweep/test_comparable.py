"""What may stand in one table, and the reason for what may not."""

import pytest

from bbframe.sweep.comparable import comparable_groups
from tests.sweep.run_folders import summary

DATA = {"name": "image_folder", "root": "photos", "batch_size": 64, "image_size": None, "split_seed": 0}


def measured(sha="a", size=(32, 32), stride=32, trainer=None, debug=False, data=None, **more):
    """A run as `read_jobs` gives it."""
    config = {"data": {**DATA, **(data or {})}, "trainer": trainer or {}, "debug": debug}
    maps = {"last": stride}
    run = {**summary(), "data": "image_folder", "test_sha256": sha}
    return {**run, "image_size": list(size), "maps": maps, "config": config, **more}


@pytest.mark.parametrize(
    "other",
    [
        measured(data={"batch_size": 8, "augment": {"flip": True}, "mean": 0.5}),
        measured("b", data={"split_seed": 1}),
        measured(size=(42, 42), stride=14),
        measured(backbone="swin", head="multi_level", seed=7),
    ],
    ids=["another training", "another split", "a size rounded up to the stride", "another network"],
)
def test_these_are_ranked_together(other):
    (group,) = comparable_groups([measured(), other])
    assert group.reason == ""


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (measured(data={"root": "scans"}), "data.root is scans, not photos"),
        (measured(data={"val_fraction": 0.3}), "data.val_fraction is 0.3, not null"),
        ({**measured(), "data": "digits"}, "data is digits, not image_folder"),
        (measured(size=(64, 64)), "image_size is [64, 64], not [32, 32]"),
        (measured(size=(48, 48), data={"image_size": 48}), "image_size is [48, 48], not [32, 32]"),
        (measured(metric="f1"), "metric is f1, not accuracy"),
        (measured(task="detection", metric="mAP"), "task is detection, not classification; metric is mAP"),
        (measured(test_part="val"), "test_part is val, not test"),
        (measured(trainer={"limit_val_batches": 2}), "trainer.limit_val_batches is 2, not null"),
        (measured(debug=True), "debug is True, not False"),
        (measured("b"), "other images were tested, although all options are the same (test_sha256 differs)"),
    ],
)
def test_these_are_not_and_the_reason_names_the_values(other, reason):
    groups = comparable_groups([measured(), other])
    assert len(groups) == 2
    assert reason in groups[1].reason
