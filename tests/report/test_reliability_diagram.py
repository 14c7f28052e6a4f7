"""The reliability diagram shows what the numbers say."""

import numpy as np
import pytest
from matplotlib.image import imread

from bbframe.report.reliability_diagram import Confidences, reliability_diagram


def test_a_bar_is_the_accuracy_of_its_bin_and_the_title_the_error(tmp_path, drawn):
    values, right = np.array([0.9, 0.92, 0.6, 1.0]), np.array([True, False, True, True])
    panels = [Confidences("as trained", values), Confidences("temperature 2", values**2)]
    reliability_diagram(panels, right, tmp_path / "reliability.png")
    figure = drawn[0]
    first, second, counts, _ = figure.axes
    assert first.get_title() == "as trained: ECE 0.3050"
    assert second.get_title().startswith("temperature 2: ECE ")
    accuracy, gap = first.containers
    assert [bar.get_height() for bar in accuracy] == [1.0, 0.5, 1.0]
    assert [bar.get_height() for bar in gap] == pytest.approx([-0.4, 0.41, 0.0])
    assert [bar.get_height() for bar in counts.patches if bar.get_height()] == [0.25, 0.5, 0.25]
    assert imread(tmp_path / "reliability.png").std() > 0.01


@pytest.mark.parametrize("sure", [0.0, 1.0])
def test_a_single_bin_is_a_picture_too(tmp_path, sure):
    reliability_diagram([Confidences("as trained", np.full(3, sure))], np.ones(3, bool), tmp_path / "reliability.png")
    assert (tmp_path / "reliability.png").stat().st_size > 5000
