"""The greedy choice of stages: it finds those that say different things, and takes no more than help."""

from __future__ import annotations

import numpy as np
import pytest

from bbframe.rank.resampling import Resampling
from bbframe.rank.stage_choice import choose_stages


@pytest.fixture(scope="module")
def stages():
    """Four classes; `stage1` and `stage3` tell one bit each, `stage2` nothing, `stage4` what stage3 does, noisily."""
    random = np.random.default_rng(0)
    y = np.arange(240) % 4
    bits = np.stack([y // 2, y % 2], axis=1)

    def made(bit, noise, channels=6):
        X = noise * random.standard_normal((len(y), channels))
        X[:, 0] += bit
        return X.astype(np.float32)

    arrays = {
        ("stem", "mean"): made(0, 1),
        ("stage1", "mean"): made(bits[:, 0], 0.2),
        ("stage2", "mean"): made(0, 1),
        ("stage3", "mean"): made(bits[:, 1], 0.1),
        ("stage3", "class_token"): made(bits[:, 1], 0.3),
        ("stage4", "mean"): made(bits[:, 1], 0.4),
    }
    return arrays, y


def choose(arrays, y, **options):
    return choose_stages(list(arrays), lambda *key: arrays[key], y, 4, Resampling(np.arange(len(y))), **options)


def test_stages_that_complete_each_other_are_found_in_network_order(stages):
    choice = choose(*stages)
    assert choice.stages == ["stage1", "stage3"]
    assert {(step.stage, step.kind) for step in choice.steps} == {("stage1", "mean"), ("stage3", "mean")}
    first, second = choice.steps
    assert (first.gain, first.gain_low, first.gain_high) == (None, None, None)
    assert 0.4 < first.score < 0.6
    assert second.score > 0.95
    assert second.gain == pytest.approx(second.score - first.score)
    assert 0 < second.gain_low < second.gain < second.gain_high
    assert choice.correct.mean() == pytest.approx(second.score)


def test_the_stage_that_did_not_join_is_named_with_its_interval(stages):
    refused = choose(*stages).refused
    assert refused.stage not in {"stage1", "stage3"}
    assert refused.gain_low <= 0


def test_a_stage_joins_with_one_kind(stages):
    arrays, y = stages
    only = {key: X for key, X in arrays.items() if key[0] == "stage3"}
    assert len(choose(only, y).steps) == 1


def test_the_number_of_stages_is_bounded_and_the_last_of_equals_is_taken(stages):
    arrays, y = stages
    assert len(choose(arrays, y, most=1).stages) == 1
    same = {(f"stage{i}", "mean"): arrays["stage3", "mean"] for i in range(3)}
    assert choose(same, y).stages == ["stage2"]


def test_a_stage_may_be_given_to_begin_with(stages):
    choice = choose(*stages, first="stage4")
    assert choice.steps[0].stage == "stage4"
    assert choice.steps[1].stage in {"stage1", "stage3"}
    assert choice.stages[-1] == "stage4"
    with pytest.raises(ValueError, match=r"^choose_stages: no stage 'stage9' to begin with; there are \['stem', .*$"):
        choose(*stages, first="stage9")


def test_nothing_to_choose_from_is_an_error():
    with pytest.raises(ValueError, match="needs one stage or more"):
        choose({}, np.arange(4))


def test_screening_changes_nothing_where_one_stage_adds_most(stages, monkeypatch):
    arrays, y = stages
    screened = choose(arrays, y)
    monkeypatch.setattr("bbframe.rank.stage_choice.SCREENED", 99)
    assert choose(arrays, y).steps == screened.steps


def test_many_rows_read_the_features_anew_and_give_the_same(stages, monkeypatch):
    arrays, y = stages
    few = choose(arrays, y)
    for module in ("rank.stage_choice", "extraction.standardised_features"):
        monkeypatch.setattr(f"bbframe.{module}.KEPT", 100)
    assert choose(arrays, y).steps == few.steps
