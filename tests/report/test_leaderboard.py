"""The table at the end of a run."""

import pytest

from bbframe.run.results import run_table


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
