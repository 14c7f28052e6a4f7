"""A ranking puts the informative features first, calls ties ties, and goes on without what cannot be scored."""

import numpy as np
import pytest

from bbframe.data import make_data
from bbframe.data.images.image_options import DigitsOptions
from bbframe.preprocessing import Preprocessing
from bbframe.rank.backbone_ranking import ordered, score_backbone
from bbframe.rank.gathering import CommonRows, Gathered, images_to_look_at
from bbframe.rank.resampling import Resampling

ROWS = 120


class Pooling:
    places = {"stage1": 1, "stage2": 2}
    strides = {"stage1": 4, "stage2": 8}
    channels = {"stage1": 6, "stage2": 6}


class Features:
    """Features of two stages that name the class with a given strength, in noise."""

    keys = [("stage1", "mean"), ("stage2", "mean")]
    pooling = Pooling()

    def __init__(self, labels, strengths, seed, broken=False):
        noise = np.random.default_rng(seed)
        self.found = {}
        for (stage, kind), strength in zip(self.keys, strengths, strict=True):
            x = noise.normal(size=(len(labels), 6)).astype(np.float32)
            x[np.arange(len(labels)), labels] += strength
            self.found[stage, kind] = np.full_like(x, np.nan) if broken else x

    def array(self, stage, kind="mean"):
        return self.found[stage, kind]


def ranked(*backbones, **more):
    labels = np.arange(ROWS) % 3
    rows = CommonRows(np.arange(ROWS), labels, None, 3)
    resampling = Resampling(rows.images, resamples=300)
    gathered = [
        Gathered(None, None, Features(labels, strengths, seed), {"name": name, "latency_seconds": cost})
        for seed, (name, strengths, cost) in enumerate(backbones)
    ]
    return ordered([score_backbone(one, rows, resampling) for one in gathered], resampling)


def test_better_features_come_first_with_interval_and_chance():
    first, last = ranked(("weak", (0, 0.3), 1.0), ("strong", (1, 4), 1.0))
    assert (first["name"], first["verdict"], last["verdict"]) == ("strong", "first", "behind")
    assert first["low"] <= first["score"] <= first["high"]
    assert last["difference_low"] <= last["difference"] <= last["difference_high"] < 0
    assert first["probability_best"] > 0.95
    assert first["probability_best"] + last["probability_best"] == pytest.approx(1)


def test_equal_features_are_tied_and_the_cheaper_comes_first():
    labels = np.arange(ROWS) % 3
    rows = CommonRows(np.arange(ROWS), labels, None, 3)
    resampling = Resampling(rows.images, resamples=300)
    same = Features(labels, (0, 3), 0)
    gathered = [Gathered(None, None, same, {"name": n, "latency_seconds": c}) for n, c in (("dear", 2), ("cheap", 1))]
    first, second = ordered([score_backbone(one, rows, resampling) for one in gathered], resampling)
    assert (first["name"], second["verdict"]) == ("cheap", "tied")
    assert first["probability_best"] == second["probability_best"] == 0.5


def test_the_stage_that_tells_is_chosen_and_noise_does_not_join():
    (only,) = ranked(("one", (0, 4), 1.0))
    assert only["chosen"]["stages"] == ["stage2"]
    assert only["chosen"]["indices"] == [2]
    assert only["chosen"]["refused"]["stage"] == "stage1"
    stages = {stage["name"]: stage["scores"] for stage in only["stages"]}
    assert stages["stage2"]["ridge"] > stages["stage1"]["ridge"] + 0.3
    assert all(set(scores) == {"ridge", "knn", "lda", "logme"} for scores in stages.values())


def test_a_backbone_without_finite_features_says_so_and_the_others_are_ranked():
    labels = np.arange(ROWS) % 3
    rows = CommonRows(np.arange(ROWS), labels, None, 3)
    resampling = Resampling(rows.images, resamples=300)
    good, bad = (
        score_backbone(
            Gathered(None, None, Features(labels, (0, 3), 0, broken), {"name": name, "latency_seconds": 1}),
            rows,
            resampling,
        )
        for name, broken in (("good", False), ("bad", True))
    )
    assert "finite" in bad.failure
    assert "\n" not in bad.failure
    assert [row["name"] for row in ordered([good, bad], resampling)] == ["good"]
    assert ordered([bad], resampling) == []


@pytest.mark.parametrize("count", [10, 21, 100, 500, 1258])
def test_images_are_chosen_by_class_and_seed_and_more_of_them_add_to_fewer(count):
    data = make_data(DigitsOptions(), seed=0, preprocessing=Preprocessing(), num_channels=3)
    labels = np.array(data.parts["train"].labels)
    found = images_to_look_at(data, "train", count, seed=0)
    assert len(found) == count == len(set(found))
    share = np.bincount(labels[found], minlength=10) / count
    assert np.abs(share - np.bincount(labels) / len(labels)).max() <= 1.01 / count + (count < 200) * 0.06
    assert (np.bincount(labels[found], minlength=10) >= (2 if count >= 20 else 1)).all()
    assert found == images_to_look_at(data, "train", count, seed=0)
    assert found != images_to_look_at(data, "train", count, seed=1)


def test_all_images_are_taken_when_there_are_no_more():
    data = make_data(DigitsOptions(), seed=0, preprocessing=Preprocessing(), num_channels=3)
    assert images_to_look_at(data, "train", 1259, seed=0) == list(range(1259))
