"""No tensor is made on the wrong device, and no step makes the host wait, as far as that shows without a GPU."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from bbframe.tasks.classification import ClassifiedImage
from tests.gpu.strict_device import DEVICE, StrictDevice
from tests.tasks.test_classification import watched
from tests.tasks.test_detection import WANTED, batch, detection
from tests.tiny import distance, example, names, tiny

TORCHVISION_WAITS = 40  # its detectors make the host wait 11 to 30 times in a training step of two images


def moved(data):
    return tree_map(lambda x: x.to(DEVICE) if isinstance(x, Tensor) else x, data)


def silent(task):
    """A task that logs nothing, so that its steps run without a trainer."""
    task.log = task.log_dict = lambda *args, **options: None
    return task


def gradients(net, maps):
    """The gradients of a sum of the maps in which every value has its own weight, on the CPU."""
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(x.shape, generator=generator).to(x.device) for x in maps]
    sum((x * weight).sum() for x, weight in zip(maps, weights, strict=True)).backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def classification():
    torch.manual_seed(4)
    return watched(tiny("resnet")).train()


def test_the_device_refuses_what_a_gpu_refuses_and_counts_what_it_waits_for():
    with StrictDevice() as device:
        x = torch.arange(6.0, device=DEVICE, requires_grad=True)
        assert (x.device.type, torch.tensor([1, 2], device=DEVICE).device) == ("lazy", DEVICE)
        for mixed in (lambda: x + torch.ones(6), lambda: torch.cat([x, torch.ones(2)]), lambda: x[x > torch.ones(6)]):
            with pytest.raises(RuntimeError, match=r"some tensors lie on lazy, and those of shapes \[\(\d,\)\]"):
                mixed()
        assert (x * torch.tensor(2.0)).device == DEVICE  # a number may come from the CPU
        assert x[torch.tensor([0])].device == DEVICE
        (x * x).sum().backward()
        assert not device.waits
        assert x.grad.tolist() == [0, 2, 4, 6, 8, 10]
        assert x[x > 3].sum().item() == 9
        assert bool((x >= 0).all())
    assert [name.split(".")[1] for name in device.waits] == [
        *("_to_copy", "index", "_local_scalar_dense", "_local_scalar_dense"),
    ]


@pytest.mark.parametrize("name", names())
def test_maps_and_gradients_stay_on_the_device_and_nothing_waits(name):
    net = tiny(name).train()
    x = example(net)
    expected = net(x).feature_maps
    by_cpu = gradients(net, expected)
    with StrictDevice() as device:
        net = tiny(name).train().to(DEVICE)
        x = x.to(DEVICE)
        maps = net(x).feature_maps
        by_device = gradients(net, maps)
        assert not device.waits
        assert {x.device for x in maps} == {DEVICE}
        assert max(distance(a.cpu(), b) for a, b in zip(maps, expected, strict=True)) < 1e-5
        assert by_device.keys() == by_cpu.keys()
        for name, grad in by_device.items():
            assert (grad.cpu() - by_cpu[name]).norm() <= 1e-4 * by_cpu[name].norm() + 1e-5, name
        device.waits.clear()
        with torch.no_grad():
            out = net.eval()(x, output_hidden_states=True, output_attentions=net.has_attentions)
        assert {x.device for x in (*out.hidden_states, *(out.attentions or ()))} == {DEVICE}
        assert not device.waits


@pytest.mark.parametrize("name", ["dinov2", "resnet", "swin"])
def test_a_forward_pass_takes_the_branches_of_cuda(name):
    """torch's fake tensors say `is_cuda`, and refuse to be mixed with those of the CPU; they hold no values."""
    net = tiny(name).eval()
    x = example(net)
    with FakeTensorMode(), torch.no_grad():
        net._apply(lambda p: torch.empty_strided(p.shape, p.stride(), dtype=p.dtype, device="cuda"))
        maps = net(torch.empty(x.shape, device="cuda")).feature_maps
    assert {x.device.type for x in maps} == {"cuda"}


def test_a_classification_step_waits_for_nothing_but_the_loss_before():
    net = tiny("resnet")
    data = {"image": example(net), "label": torch.tensor([0, 2]), "index": torch.tensor([0, 1])}
    by_cpu = silent(classification()).training_step(data, 0)
    with StrictDevice() as device:
        task = silent(classification()).to(DEVICE)
        data = moved(data)
        loss = task.training_step(data, 0)
        loss.backward()
        assert not device.waits
        task.training_step(data, 1)
        assert device.waits == ["aten._local_scalar_dense.default"]  # the finite loss of the first step
        assert torch.allclose(loss.cpu(), by_cpu)
        task.eval()
        device.waits.clear()
        task.validation_step(data, 0)
        assert not device.waits
        task.test_step(data, 0)
        assert len(device.waits) == len(ClassifiedImage._fields)  # a column each of the predictions
        assert {x.device.type for x in task.test_metrics.state_dict().values()} <= {"lazy"}
    assert [row[:2] for row in task.predictions] == [(0, 0), (1, 2)]


@pytest.mark.long
@pytest.mark.parametrize("head", sorted(WANTED))
def test_a_detection_step_waits_no_more_than_torchvision_does(head):
    task = silent(detection("resnet", head).train())
    torch.manual_seed(5)  # R-CNNs draw their regions
    by_cpu = task.training_step(batch(), 0)
    with StrictDevice() as device:
        task = silent(detection("resnet", head).train()).to(DEVICE)  # the same weights
        data = moved(batch())
        torch.manual_seed(5)
        loss = task.training_step(data, 0)
        assert len(device.waits) <= TORCHVISION_WAITS, Counter(device.waits)
        device.waits.clear()
        loss.backward()
        assert set(device.waits) <= {"aten.index_put.default", "aten.index.Tensor"}  # the gradients of its masks
        assert torch.allclose(loss.cpu(), by_cpu, rtol=1e-4)
        if hasattr(task.head.model, "roi_heads"):
            task.head.model.roi_heads.detections_per_img = 40
        task.eval()
        device.waits.clear()
        with torch.no_grad():
            task.test_step(data, 0)
        assert len(device.waits) < 60, Counter(device.waits)  # none for each of the boxes
    assert len(task.predictions) == 2
    assert {type(column) for row in task.predictions for column in (*row.found[:3], *row.truth[:4])} == {np.ndarray}


def test_a_loss_that_is_not_finite_is_named_a_step_later_or_at_the_end_of_the_epoch():
    said = r"the training loss is nan at epoch 1, batch 4; try a lower optim\.lr"
    task = watched(tiny("resnet"))
    with StrictDevice():
        bad, good = torch.tensor(float("nan"), device=DEVICE), torch.tensor(1.0, device=DEVICE)
        task.finite(bad, 3)
        with pytest.raises(ValueError, match=said):
            task.finite(good, 4)
        task.finite(good, 4)
        task.finite(bad, 3)
        with pytest.raises(ValueError, match=said):
            task.on_train_epoch_end()
        task.on_train_epoch_end()
    with pytest.raises(ValueError, match=said):
        task.finite(torch.tensor(float("nan")), 3)
