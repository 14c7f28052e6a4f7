"""The pictures of a ranking: they show every stage, what was chosen and the front, and say what is untrained."""

from __future__ import annotations

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from bbframe.report import ranking_pictures
from bbframe.report.chart_style import ORANGE
from bbframe.report.ranking_pictures import score_against_latency, score_by_stage
from tests.report.made_ranking import made_ranking


def words(figure):
    found = [figure.get_suptitle()]
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), *(text.get_text() for text in axes.texts)]
        found += [label.get_text() for label in axes.get_yticklabels()]
    return found


def frames(figure):
    orange = matplotlib.colors.to_rgba(ORANGE)
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    return [patch for patch in patches if not patch.get_fill() and patch.get_edgecolor() == orange]


def test_every_stage_has_a_cell_and_the_chosen_ones_a_frame(tmp_path, drawn):
    ranking = made_ranking()
    score_by_stage(ranking, tmp_path / "stages.png")
    cells = [patch for patch in drawn[0].axes[0].patches if patch.get_fill()]
    assert len(cells) == sum(len(one["stages"]) for one in ranking["backbones"])
    assert len(frames(drawn[0])) == 2 * 13
    text = words(drawn[0])
    assert "0.763" in text
    assert {"dinov2_small", "dinov2_small, class token", "vitdet_base"} <= set(text)
    assert not any("untrained" in word for word in text)
    assert imread(tmp_path / "stages.png").std() > 0.01


def test_the_better_of_two_stages_has_the_stronger_colour(tmp_path, drawn):
    score_by_stage(made_ranking(1), tmp_path / "stages.png")
    shades = [sum(patch.get_facecolor()[:3]) for patch in drawn[0].axes[0].patches if patch.get_fill()]
    assert shades == sorted(shades, reverse=True)


@pytest.mark.parametrize("draw", [score_by_stage, score_against_latency])
def test_untrained_weights_are_said_in_the_title_and_at_each_name(tmp_path, drawn, draw):
    draw(made_ranking(4, untrained=("swinv2_tiny",)), tmp_path / "some.png")
    assert "some weights untrained" in drawn[0].get_suptitle()
    assert "swinv2_tiny (untrained)" in words(drawn[0])
    draw(made_ranking(1, untrained=("convnextv2_nano",)), tmp_path / "all.png")
    assert "(untrained weights)" in drawn[1].get_suptitle()


@pytest.mark.parametrize("draw", [score_by_stage, score_against_latency])
def test_nothing_to_draw_is_said(tmp_path, draw):
    with pytest.raises(ValueError, match="nothing to draw"):
        draw({**made_ranking(1), "backbones": []}, tmp_path / "none.png")
    assert list(tmp_path.iterdir()) == []


def test_the_front_is_a_line_of_what_nothing_faster_reaches(tmp_path, drawn):
    score_against_latency(made_ranking(), tmp_path / "latency.png")
    line = next(line for line in drawn[0].axes[0].lines if line.get_label().startswith("Pareto front"))
    costs, scores = line.get_data()
    np.testing.assert_allclose(costs, [12, 28, 31, 131])
    np.testing.assert_allclose(scores, [0.904, 0.915, 0.965, 0.965])
    text = words(drawn[0])
    assert {str(place) for place in range(1, 14)} <= set(text)
    assert "resnet_18" in text
    assert drawn[0].axes[0].get_xscale() == "log"


def test_many_backbones_and_odd_names_are_a_picture_too(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(ranking_pictures, "MOST_ROWS", 6)
    ranking = made_ranking(1)
    one = ranking["backbones"][0]
    ranking["backbones"] = [{**one, "name": f"猫 $x_{{{i}}}$ <b>\u202e" + "y" * 200} for i in range(9)]
    score_by_stage(ranking, tmp_path / "a.png")
    assert "the first 6 of 9 rows" in drawn[0].get_suptitle()
    score_against_latency(ranking, tmp_path / "b.png")
    assert "and 3 more" in words(drawn[1])
    for name in ("a.png", "b.png"):
        height, width = imread(tmp_path / name).shape[:2]
        assert max(height, width) < 2600


@pytest.mark.long
def test_missing_values_leave_gaps(tmp_path, drawn):
    ranking = made_ranking(3)
    first, second, third = ranking["backbones"]
    first["stages"][0]["scores"]["ridge"] = None
    second |= {"score": None, "latency_seconds": None}
    third |= {"low": None, "high": None}
    score_by_stage(ranking, tmp_path / "a.png")
    score_against_latency(ranking, tmp_path / "b.png")
    assert "dinov2_small" not in words(drawn[1])
