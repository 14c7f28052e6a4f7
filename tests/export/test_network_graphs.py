"""The graphs of networks give what the networks give; boxes are suppressed as torchvision suppresses them."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import batched_nms

from bbframe.export.box_suppression import NO_BOX, best_boxes, best_scores
from bbframe.export.export_check import compare_outputs
from bbframe.export.network_export import as_outputs
from bbframe.export.network_graphs import network_graph
from tests.export.made_networks import DETECTORS, inputs, made_network


def crowded(generator, images, count):
    corners = torch.rand(images, count, 2, generator=generator) * 60
    return torch.cat([corners, corners + 5 + 20 * torch.rand(images, count, 2, generator=generator)], dim=2)


def test_suppression_of_a_batch_is_that_of_each_image():
    generator = torch.Generator().manual_seed(0)
    boxes = crowded(generator, 3, 80)
    scores = torch.rand(3, 80, generator=generator)
    groups = torch.randint(4, (3, 80), generator=generator)
    scores[:, ::3] = NO_BOX  # those do not count, though they overlap with ones that do
    scores[2] = NO_BOX  # an image without any
    found, places = best_boxes(boxes, scores, groups, 0.3, 25)
    for i in range(2):
        there = (scores[i] >= 0).nonzero()[:, 0]
        kept = there[batched_nms(boxes[i, there], scores[i, there], groups[i, there], 0.3)][:25]
        assert len(kept) < len(there)
        assert places[i, : len(kept)].tolist() == kept.tolist()
        assert (found[i, len(kept) :] == NO_BOX).all()
    assert (found[2] == NO_BOX).all()


def test_a_box_that_does_not_count_suppresses_none():
    box = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10]]])
    found, places = best_boxes(box, torch.tensor([[NO_BOX, 0.4]]), torch.zeros(1, 2, dtype=torch.long), 0.5, 2)
    assert found.tolist() == [[pytest.approx(0.4), NO_BOX]]
    assert places[0, 0] == 1


def test_the_best_scores_of_a_short_row_are_padded():
    scores, places = best_scores(torch.tensor([[0.2, NO_BOX, 0.9]]), 5)
    assert scores[0].tolist() == pytest.approx([0.9, 0.2, NO_BOX, NO_BOX, NO_BOX])
    assert places.tolist() == [[2, 0, 0, 0, 0]]


@pytest.mark.long
@pytest.mark.parametrize("head", DETECTORS)
def test_a_detector_finds_in_a_batch_what_the_network_finds_in_each_image(head):
    network = made_network("resnet", head)
    graph = network_graph(network, inside=False)
    for height, width, batch in ((64, 96, 2), (33, 101, 1), (70, 45, 3)):
        x = inputs(network, height, width, batch)
        with torch.no_grad():
            found = dict(zip(graph.outputs, graph(x), strict=True))
        assert found["boxes"].shape == (batch, 20, 4)
        assert ("masks" in found) == (head == "mask_rcnn")
        expected = as_outputs(network, list(x), graph.outputs)
        result = compare_outputs(found, expected)
        assert found["count"].tolist() == expected["count"].tolist()
        assert result["agreeing"] == result["compared"] > 10
        assert max(result["worst"].values()) < 1e-4


@pytest.mark.parametrize("head", ["fcos", "mask_rcnn"])
def test_rest_of_an_image_with_few_objects_is_empty(head):
    network = made_network("resnet", head)
    model = network.head.model
    (model.roi_heads if head == "mask_rcnn" else model).score_thresh = 0.99
    found = dict(zip((g := network_graph(network, inside=False)).outputs, g(inputs(network, 64, 64, 2)), strict=True))
    assert found["count"].tolist() == [0, 0]
    assert found["scores"].sum() == found["boxes"].abs().sum() == 0
    assert (found["labels"] == -1).all()


def test_a_classifier_gives_calibrated_probabilities_and_the_distance():
    network = made_network("convnextv2", "linear")
    graph = network_graph(network, inside=False)
    x = inputs(network, 64, 80, 3)
    shares, distance = graph(x)
    answers = network.answers(list(x))
    torch.testing.assert_close(shares, torch.stack([answer.probabilities for answer in answers]))
    assert distance.tolist() == pytest.approx([answer.distance for answer in answers], rel=1e-4)


def test_a_head_of_ones_own_is_refused_by_name():
    network = made_network("resnet", "fcos")
    network.task.head = torch.nn.Identity()
    with pytest.raises(ValueError, match="a Identity cannot be exported; classifiers can, and the detectors fcos"):
        network_graph(network, inside=False)
