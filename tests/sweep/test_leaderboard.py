"""The table of a sweep: ordered by validation, averaged over seeds and splits; nothing lost, nothing misranked."""

import csv
import math
import statistics

import pytest
from scipy.stats import t

from bbframe.sweep.job_results import read_jobs
from bbframe.sweep.leaderboard import write
from tests.sweep.run_folders import run_folder, summary


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """The pictures that would have been drawn: name, metric and points. Drawing one takes a second."""
    pictures = []
    monkeypatch.setattr(
        "bbframe.sweep.leaderboard.accuracy_against_gmacs",
        lambda points, metric, out: pictures.append((out.name, metric, points)),
    )
    return pictures


def rows(sweep):
    with open(sweep / "leaderboard.csv", newline="") as file:
        return list(csv.DictReader(file))


def seeds(sweep, scores):
    """A run for each seed of each backbone, from {backbone: test accuracies}."""
    number = 0
    for backbone, accuracies in scores.items():
        for seed, accuracy in enumerate(accuracies):
            run_folder(sweep, number, summary(backbone, accuracy, seed))
            number += 1


def half_width(values):
    return t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def test_jobs_that_differ_in_the_seed_alone_are_one_row_with_student_ts_interval(tmp_path, drawn):
    scores = {"resnet": [0.9, 0.92, 0.97], "convnextv2": [0.95, 0.96, 0.98]}
    seeds(tmp_path, scores)
    text = write(tmp_path)
    table = rows(tmp_path)
    assert [row["run"] for row in table] == ["backbone=convnextv2", "backbone=resnet"]
    for row in table:
        accuracies = scores[row["backbone"]]
        mean = statistics.fmean(accuracies)
        assert (int(row["runs"]), int(row["seeds"]), row["seed_list"]) == (3, 3, "0, 1, 2")
        assert float(row["params"]) == 11_200_000
        assert float(row["test.accuracy"]) == pytest.approx(mean)
        assert float(row["test_std.accuracy"]) == pytest.approx(statistics.stdev(accuracies))
        assert float(row["test_low.accuracy"]) == pytest.approx(mean - half_width(accuracies))
        assert float(row["val_high.accuracy"]) == pytest.approx(mean + 0.01 + half_width(accuracies))
        assert float(row["test.f1"]) == pytest.approx(statistics.fmean(accuracies) / 2)
        assert (row["val_interval_over"], row["test_interval_over"]) == ("seeds", "seeds")
        assert float(row["seconds"]) == 12
    assert f"{statistics.fmean(scores['resnet']):.4f} ± {half_width(scores['resnet']):.4f}" in text
    ((name, metric, points),) = drawn
    assert (name, metric) == ("leaderboard.png", "test accuracy")
    assert {(point.label, point.gmacs, point.over) for point in points} == {
        ("backbone=resnet", 0.5, "seeds"),
        ("backbone=convnextv2", 0.75, "seeds"),
    }


def test_the_head_says_what_orders_the_rows_what_they_average_and_what_the_interval_is(tmp_path):
    seeds(tmp_path, {"resnet": [0.9, 0.92], "convnextv2": [0.95, 0.96]})
    head = write(tmp_path).splitlines()[:2]
    assert head == [
        "ordered by val accuracy (higher is better), which chose each run's epoch; test accuracy stands beside it",
        "averages seeds 0, 1; ± is the 95 % Student-t interval of the mean over seeds (wide for two seeds: three or "
        "more tell much more)",
    ]
    assert all(line in (tmp_path / "leaderboard.md").read_text() for line in head)
    assert {(row["ordered_by"], row["mode"]) for row in rows(tmp_path)} == {("val.accuracy", "max")}


def test_validation_orders_the_rows_even_where_the_test_disagrees(tmp_path):
    run_folder(tmp_path, 0, summary("resnet", 0.9, val={"accuracy": 0.8}))
    run_folder(tmp_path, 1, summary("convnextv2", 0.7, val={"accuracy": 0.85}))
    write(tmp_path)
    assert [(row["place"], row["backbone"]) for row in rows(tmp_path)] == [("1", "convnextv2"), ("2", "resnet")]


def test_a_single_seed_has_the_interval_of_its_own_test_and_the_table_says_so(tmp_path):
    run_folder(tmp_path, 0, summary(accuracy=0.9))
    seeds(tmp_path / "several", {"resnet": [0.9, 0.92]})
    text = write(tmp_path)
    (row,) = rows(tmp_path)
    assert "0.9000 [0.8800, 0.9300]" in text
    assert "[low, high] is the 95 % bootstrap interval over the test images of a single run" in text
    assert "±" not in text
    assert (row["val_interval_over"], row["test_interval_over"]) == ("", "images")
    assert (row["val_low.accuracy"], row["test_low.accuracy"]) == ("", "0.88")
    assert "bootstrap" not in write(tmp_path / "several")


def test_what_distinguishes_a_row_is_its_name(tmp_path):
    for number, (indices, lr) in enumerate([("[1,3]", 0.1), ("[2,4]", 0.1), ("[2,4]", 0.2)]):
        asked = ["backbone=resnet", f"backbone.out_indices={indices}", f"optim.lr={lr}", "+seed=1"]
        run_folder(tmp_path, number, summary(accuracy=0.9 - number / 10, overrides=asked))
    write(tmp_path)
    assert [row["run"] for row in rows(tmp_path)] == [
        "backbone.out_indices=[1,3] optim.lr=0.1",
        "backbone.out_indices=[2,4] optim.lr=0.1",
        "backbone.out_indices=[2,4] optim.lr=0.2",
    ]


@pytest.mark.parametrize(
    ("metric", "mode", "best"),
    [("map", "max", "convnextv2"), ("accuracy", "max", "convnextv2"), ("distance", "min", "resnet")],
)
def test_the_mode_of_the_metric_says_which_end_is_the_first(tmp_path, metric, mode, best):
    run_folder(tmp_path, 0, summary("resnet", 0.2, metric=metric, mode=mode))
    run_folder(tmp_path, 1, summary("convnextv2", 0.6, metric=metric, mode=mode))
    text = write(tmp_path)
    assert f"ordered by val {metric} ({'higher' if mode == 'max' else 'lower'} is better)" in text
    assert rows(tmp_path)[0]["backbone"] == best


def test_without_a_test_there_is_no_column_for_it(tmp_path):
    run_folder(tmp_path, 0, summary("resnet", 0.2, test={}))
    run_folder(tmp_path, 1, summary("convnextv2", 0.6, test={}))
    text = write(tmp_path)
    assert "test accuracy" not in text
    assert rows(tmp_path)[0]["backbone"] == "convnextv2"


def test_runs_that_were_not_trained_are_ordered_by_their_test_and_the_head_says_so(tmp_path):
    run_folder(tmp_path, 0, summary("resnet", 0.2, val={}))
    run_folder(tmp_path, 1, summary("convnextv2", 0.6, val={}))
    assert write(tmp_path).startswith("ordered by test accuracy (higher is better): no run has a validation\n")
    assert rows(tmp_path)[0]["backbone"] == "convnextv2"


def test_a_result_that_is_not_a_number_comes_last_and_spoils_no_mean(tmp_path):
    run_folder(tmp_path, 0, summary("resnet", math.nan, 1))
    run_folder(tmp_path, 1, summary("dinov2", 0.5, 1))
    run_folder(tmp_path, 2, summary("dinov2", math.nan, 2))
    run_folder(tmp_path, 3, summary("swin", math.inf, 2))
    text = write(tmp_path)
    found = [(row["backbone"], row["test.accuracy"]) for row in rows(tmp_path)]
    assert found == [("dinov2", "0.5"), ("resnet", ""), ("swin", "")]
    assert "backbone=dinov2: val accuracy is no finite number in 2; it is left out" in text
    assert "backbone=resnet: it cannot be told whether it differs from the first: no val value" in text


def test_jobs_without_a_result_come_last_and_say_why(tmp_path):
    run_folder(tmp_path, 0, "backbone: unknown\nTraceback ...\n", ["backbone=foo", "trainer.max_epochs=3", "seed=1"])
    run_folder(tmp_path, 1, None, ["backbone=resnet", "trainer.max_epochs=3", "seed=2"])
    run_folder(tmp_path, 2, summary())
    run_folder(tmp_path, 3, None, ["seed=3"])
    (tmp_path / "3" / "metrics.json").write_text('{"status": ')
    (tmp_path / ".cache").mkdir()
    text = write(tmp_path)
    found = rows(tmp_path)
    assert [row["backbone"] for row in found] == ["resnet", "", "", ""]
    assert [row["status"] for row in found] == ["ok", "failed", "unfinished", "failed"]
    for line, words in zip(found[1:], ["backbone: unknown (folder 0)", "still running", "broken record"], strict=True):
        assert words in line["error"]
        assert words in text
        assert words in (tmp_path / "leaderboard.md").read_text()
    assert "Traceback" not in text
    assert found[1]["run"] == "backbone=foo trainer.max_epochs=3 seed=1"


@pytest.mark.parametrize("same", [[], ["backbone=resnet"]])
def test_a_row_that_lacks_seeds_says_how_many_it_has(tmp_path, same):
    for seed in (1, 2, 3):
        content = summary(seed=seed, overrides=[*same, f"seed={seed}"]) if seed < 3 else "no memory"
        run_folder(tmp_path, seed, content, [*same, f"seed={seed}"])
    text = write(tmp_path)
    assert "2 of 3  " in text
    assert "averages 2 of 3 runs; the others have no result, see below" in text
    assert (rows(tmp_path)[0]["runs"], rows(tmp_path)[0]["lost"]) == ("2", "1")


def test_a_sweep_in_which_all_failed_has_no_picture(tmp_path, drawn):
    run_folder(tmp_path, 0, "", ["seed=1"])
    assert write(tmp_path) == "failed: 0: it does not say why (folder 0)"
    assert not drawn
    assert len(rows(tmp_path)) == 1


def test_what_is_not_comparable_stands_in_a_table_of_its_own_with_the_reason(tmp_path, drawn):
    run_folder(tmp_path, 0, summary("resnet", 0.9))
    run_folder(tmp_path, 1, summary("swin", 0.99, image_size=[64, 64]))
    run_folder(tmp_path, 2, summary("dinov2", 0.95))
    text = write(tmp_path)
    found = [(row["table"], row["place"], row["backbone"], row["vs_first"]) for row in rows(tmp_path)]
    assert found == [("1", "1", "dinov2", "first"), ("1", "2", "resnet", "unknown"), ("2", "1", "swin", "first")]
    assert "table 2, not comparable to table 1: image_size is [64, 64], not [32, 32]" in text
    assert text.index("table 1 of 2") < text.index("dinov2") < text.index("table 2") < text.index("swin")
    assert [name for name, _, _ in drawn] == ["leaderboard.png", "leaderboard_2.png"]


def test_what_is_tied_is_marked_and_the_head_says_by_which_measurement(tmp_path):
    seeds(tmp_path, {"resnet": [0.9, 0.8, 0.7], "swin": [0.89, 0.791, 0.689], "dinov2": [0.7, 0.95, 0.6]})
    text = write(tmp_path)
    found = {row["backbone"]: (row["vs_first"], row["compared_on"]) for row in rows(tmp_path)}
    by = "validation, 3 common seeds"
    assert found == {"resnet": ("first", ""), "swin": ("worse", by), "dinov2": ("tied", by)}
    assert "tied: the paired t interval of the validation difference to the first" in text
    assert "*" not in text


def test_single_seeds_are_compared_on_their_test_images_and_marked_with_a_star(tmp_path):
    for name, right in (("resnet", [True] * 190 + [False] * 10), ("swin", [True] * 150 + [False] * 50)):
        run_folder(tmp_path, name, summary(name, sum(right) / 200), right=right)
    text = write(tmp_path)
    assert "worse*" in text
    assert "*: fewer than two common seeds, so one run of each was compared on the test images" in text
    second = rows(tmp_path)[1]
    assert (second["vs_first"], second["compared_on"]) == ("worse", "test images of one run each")
    assert float(second["difference_low"]) < float(second["difference"]) < float(second["difference_high"]) < 0


def test_a_picture_of_an_earlier_table_is_removed(tmp_path):
    (tmp_path / "leaderboard_2.png").write_text("old")
    run_folder(tmp_path, 0, summary())
    write(tmp_path)
    assert not (tmp_path / "leaderboard_2.png").exists()


def test_the_text_and_the_markdown_are_aligned(tmp_path):
    for number, name in enumerate(["resnet", "a|b", "convnextv2_with_a_long_name"]):
        run_folder(tmp_path, number, summary(name, 0.9 - number / 100))
    text = write(tmp_path).splitlines()
    assert len({len(line) for line in text if line.startswith(("run ", "backbone=")) and ":" not in line}) == 1
    lines = [line for line in (tmp_path / "leaderboard.md").read_text().splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_jobs_keep_the_order_of_their_numbers(tmp_path):
    for name in ("10_swin", "2", "0_resnet", "other"):
        run_folder(tmp_path, name, summary())
    (tmp_path / "multirun.yaml").write_text("")
    assert [found["folder"] for found in read_jobs(tmp_path)] == ["0_resnet", "2", "10_swin", "other"]


def test_control_characters_of_an_override_reach_no_terminal(tmp_path):
    for number in (0, 1):
        run_folder(tmp_path, number, summary(overrides=[f"name=\x1b[31m{number}\n\u202e"]))
    text = write(tmp_path)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "name=\\x1b[31m0\\n\\u202e" in text
