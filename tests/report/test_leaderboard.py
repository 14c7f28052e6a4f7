"""The table of a sweep: seeds averaged, the best first, nothing lost."""

import csv
import json
import math
import statistics

import pytest
import yaml

from bbframe.run.results import run_table
from bbframe.sweep.leaderboard import collect, write


def summary(backbone="resnet", accuracy=0.9, seed=1, overrides=None, metric="accuracy"):
    return {
        "status": "ok",
        "backbone": backbone,
        "source": "transformers",
        "params": 11_200_000,
        "gmacs": {"resnet": 0.5, "convnextv2": 0.75}.get(backbone, 4.0),
        "epochs": 3,
        "metric": metric,
        "val": {metric: accuracy + 0.01},
        "best_epoch": 2,
        "test": {metric: accuracy, "f1": accuracy / 2},
        "test_low": {metric: accuracy - 0.1},
        "test_high": {metric: accuracy + 0.1},
        "seconds": {"fit": 10.0, "test": 0.5, "total": 11.0 + seed},
        "peak_memory_bytes": 2**30,
        "seed": seed,
        "overrides": overrides or [f"backbone={backbone}", "trainer.max_epochs=3", f"seed={seed}"],
    }


def job(sweep, number, content, overrides=None):
    """A job folder with metrics.json (a dict) or error.txt (a text)."""
    folder = sweep / str(number)
    folder.mkdir()
    if overrides is not None:
        (folder / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if isinstance(content, dict):
        (folder / "metrics.json").write_text(json.dumps(content))
    elif content is not None:
        (folder / "error.txt").write_text(content)


def rows(sweep):
    with open(sweep / "leaderboard.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_jobs_that_differ_in_the_seed_alone_are_one_row(tmp_path):
    scores = {"resnet": [0.9, 0.92, 0.97], "convnextv2": [0.95, 0.96, 0.98]}
    number = 0
    for backbone, accuracies in scores.items():
        for seed, accuracy in enumerate(accuracies):
            job(tmp_path, number, summary(backbone, accuracy, seed))
            number += 1
    text = write(tmp_path)
    table = rows(tmp_path)
    assert [row["run"] for row in table] == ["backbone=convnextv2", "backbone=resnet"]
    for row in table:
        accuracies = scores[row["backbone"]]
        assert int(row["seeds"]) == 3
        assert int(row["params"]) == 11_200_000
        assert float(row["test/accuracy"]) == pytest.approx(statistics.fmean(accuracies))
        assert float(row["test/accuracy std"]) == pytest.approx(statistics.stdev(accuracies))
        assert float(row["test/f1"]) == pytest.approx(statistics.fmean(accuracies) / 2)
        assert float(row["seconds"]) == 12
    assert f"{statistics.fmean(scores['resnet']):.4f} ± {statistics.stdev(scores['resnet']):.4f}" in text
    assert (tmp_path / "leaderboard.png").stat().st_size > 5000


def test_a_single_seed_has_no_spread(tmp_path):
    job(tmp_path, 0, summary())
    assert "±" not in write(tmp_path)
    assert rows(tmp_path)[0]["test/accuracy std"] == ""


def test_what_distinguishes_a_row_is_its_name(tmp_path):
    for number, (indices, lr) in enumerate([("[1,3]", 0.1), ("[2,4]", 0.1), ("[2,4]", 0.2)]):
        asked = ["backbone=resnet", f"backbone.out_indices={indices}", f"optim.lr={lr}", "+seed=1"]
        job(tmp_path, number, summary(accuracy=0.9 - number / 10, overrides=asked))
    write(tmp_path)
    assert [row["run"] for row in rows(tmp_path)] == [
        "backbone.out_indices=[1,3] optim.lr=0.1",
        "backbone.out_indices=[2,4] optim.lr=0.1",
        "backbone.out_indices=[2,4] optim.lr=0.2",
    ]


@pytest.mark.parametrize(("metric", "best"), [("map", "convnextv2"), ("accuracy", "convnextv2"), ("loss", "resnet")])
def test_the_metric_that_chose_the_best_epoch_ranks_the_rows(tmp_path, metric, best):
    job(tmp_path, 0, summary("resnet", 0.2, metric=metric))
    job(tmp_path, 1, summary("convnextv2", 0.6, metric=metric))
    text = write(tmp_path)
    assert f"test/{metric}" in text.splitlines()[0]
    assert rows(tmp_path)[0]["backbone"] == best


def test_without_a_test_the_validation_ranks_the_rows(tmp_path):
    job(tmp_path, 0, {**summary("resnet", 0.2), "test": {}})
    job(tmp_path, 1, {**summary("convnextv2", 0.6), "test": {}})
    head = write(tmp_path).splitlines()[0]
    assert head.count("val/accuracy") == 1
    assert "test/" not in head
    assert rows(tmp_path)[0]["backbone"] == "convnextv2"


def test_a_result_that_is_not_a_number_comes_last_and_spoils_no_mean(tmp_path):
    job(tmp_path, 0, summary("resnet", math.nan, 1))
    job(tmp_path, 1, summary("dinov2", 0.5, 1))
    job(tmp_path, 2, summary("dinov2", math.nan, 2))
    write(tmp_path)
    found = rows(tmp_path)
    assert [(row["backbone"], row["test/accuracy"]) for row in found] == [("dinov2", "0.5"), ("resnet", "")]


def test_failed_jobs_come_last_and_say_why(tmp_path):
    job(tmp_path, 0, "backbone: unknown\nTraceback ...\n", ["backbone=foo", "trainer.max_epochs=3", "seed=1"])
    job(tmp_path, 1, None, ["backbone=resnet", "trainer.max_epochs=3", "seed=2"])
    job(tmp_path, 2, summary())
    job(tmp_path, 3, None, ["seed=3"])
    (tmp_path / "3" / "metrics.json").write_text('{"status": ')
    (tmp_path / ".cache").mkdir()
    text = write(tmp_path)
    found = rows(tmp_path)
    assert [row["backbone"] for row in found] == ["resnet", "", "", ""]
    for line, words in zip(found[1:], ["backbone: unknown (folder 0)", "still running", "broken record"], strict=True):
        assert words in line["error"]
        assert words in text
        assert words in (tmp_path / "leaderboard.md").read_text()
    assert "Traceback" not in text
    assert found[1]["run"] == "backbone=foo trainer.max_epochs=3 seed=1"


def test_a_sweep_in_which_all_failed_has_no_picture(tmp_path):
    job(tmp_path, 0, "", ["seed=1"])
    assert "failed" in write(tmp_path)
    assert not (tmp_path / "leaderboard.png").exists()
    assert len(rows(tmp_path)) == 1


def test_the_text_and_the_markdown_are_aligned(tmp_path):
    for number, name in enumerate(["resnet", "a|b", "convnextv2_with_a_long_name"]):
        job(tmp_path, number, summary(name, 0.9 - number / 100))
    text = write(tmp_path).splitlines()
    assert len({len(line) for line in text}) == 1
    lines = (tmp_path / "leaderboard.md").read_text().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_jobs_keep_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 0):
        job(tmp_path, number, summary(seed=number))
    (tmp_path / "multirun.yaml").write_text("")
    assert [found["folder"] for found in collect(tmp_path)] == ["0", "2", "10"]


def test_the_end_of_a_run():
    text = run_table({**summary(accuracy=0.9861), "folder": "outputs/classification/run"})
    assert text.splitlines() == [
        "backbone       resnet",
        "source         transformers",
        "parameters     11.20 M",
        "GMACs          0.5",
        "epochs         3",
        "val/accuracy   0.9961 (best, epoch 2)",
        "test/accuracy  0.9861 (0.886 to 1.086, 95 % bootstrap)",
        "seconds        12.0 (fit 10.0, test 0.5)",
        "folder         outputs/classification/run",
    ]


@pytest.mark.parametrize(("part", "metric"), [("val", "val/accuracy"), ("test", "test/accuracy")])
def test_what_was_not_done_is_not_in_the_table(part, metric):
    assert metric not in run_table({**summary(), part: {}, "folder": "x"})
