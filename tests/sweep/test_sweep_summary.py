"""What the page of a sweep is given."""

import pytest

from bbframe.sweep.leaderboard import write
from bbframe.sweep.ranking import read_leaderboard
from bbframe.sweep.setting_results import Setting
from bbframe.sweep.sweep_summary import option_effects, summarise_sweep
from tests.sweep.run_folders import run_folder, summary


def setting(value, *overrides):
    runs = [summary(seed=seed, val={"accuracy": value}, overrides=[*overrides, f"seed={seed}"]) for seed in (1, 2)]
    return Setting(" ".join(overrides), runs, [])


def test_the_effect_of_an_option_is_the_mean_over_the_settings_that_have_its_value():
    settings = [
        setting(0.9, "backbone=swin", "optim.lr=1e-3", "trainer.max_epochs=3"),
        setting(0.8, "backbone=swin", "optim.lr=1e-1", "trainer.max_epochs=3"),
        setting(0.7, "backbone=resnet", "optim.lr=1e-3", "trainer.max_epochs=3"),
        setting(0.3, "backbone=resnet", "optim.lr=1e-1", "trainer.max_epochs=3", "+task.freeze=all"),
    ]
    effects = {effect.key: effect for effect in option_effects(settings, "val", "accuracy")}
    assert list(effects) == ["backbone", "optim.lr", "task.freeze"]
    found = {one.value: (one.settings, one.score.mean) for one in effects["optim.lr"].values}
    assert found == {"1e-3": (2, pytest.approx(0.8)), "1e-1": (2, pytest.approx(0.55))}
    assert [x for x, _, _ in effects["optim.lr"].points] == [0.001, 0.1, 0.001, 0.1]
    assert effects["backbone"].points == []
    swin = effects["backbone"].values[0].score
    assert swin.mean == pytest.approx(0.85)
    assert swin.low < 0.8 < 0.9 < swin.high
    assert {one.value for one in effects["task.freeze"].values} == {"(not given)", "all"}


def test_an_option_with_many_numbers_is_drawn_and_not_averaged():
    settings = [setting(0.5 + i / 100, f"optim.lr={i / 1000}") for i in range(1, 20)]
    (effect,) = option_effects(settings, "val", "accuracy")
    assert effect.values == []
    assert len(effect.points) == 19


def test_runs_link_to_the_pages_that_exist_and_failures_keep_their_reason(tmp_path):
    made = run_folder(tmp_path, "0_resnet", summary("resnet", 0.9, overrides=["backbone=resnet"]))
    (made / "report.html").write_text("a page")
    run_folder(tmp_path, "1_swin", summary("swin", 0.8, overrides=["backbone=swin"]))
    run_folder(tmp_path, "2_beit", "no memory", ["backbone=beit"])
    (tmp_path / "sweep.yaml").write_text("overrides: ['backbone=resnet,swin,beit']\n")
    found = summarise_sweep(tmp_path, read_leaderboard(tmp_path))
    assert found.overrides == ["backbone=resnet,swin,beit"]
    (table,) = found.tables
    assert {run.folder: run.page for run in table.runs} == {"0_resnet": True, "1_swin": False}
    assert [(job.folder, job.label, job.reason) for job in found.lost] == [("2_beit", "backbone=beit", "no memory")]
    costs = {"params": 11_200_000, "gmacs": 0.5, "latency_seconds": None, "epochs": 3, "seconds": 12}
    assert table.settings[0].costs == costs


def test_the_page_is_written_with_the_table(tmp_path):
    run_folder(tmp_path, "0_<b>", summary("resnet"))
    write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "0_&lt;b&gt;" in page
    assert "Ordered by val accuracy (higher is better)" in page
