"""Freezing, rates and memory: each holds on every architecture, or is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bbframe.heads import ClassifierOptions
from bbframe.registry import make
from bbframe.tasks.classification import Classification
from bbframe.tasks.freezing import keep_in_eval, prepare
from bbframe.tasks.optimizer import parameter_groups
from bbframe.tasks.optimizer_options import AdamWOptions, ConstantOptions, CosineOptions
from bbframe.tasks.task_options import ClassificationOptions
from tests.tiny import example, names, tiny


def task(backbone, head="linear", optim=None, **options):
    return Classification(
        ClassificationOptions(**options),
        backbone,
        ["a", "b", "c"],
        head=ClassifierOptions(name=head),
        optim=optim or AdamWOptions(),
        schedule=CosineOptions(),
    )


@pytest.mark.parametrize("freeze", ["none", 0, 1, "all"])
@pytest.mark.parametrize("name", names())
def test_a_frozen_part_does_not_change_and_the_rest_does(name, freeze):
    net = tiny(name)
    module = task(net, freeze=freeze).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    depth = {"none": -1, "all": net.num_built - 1}.get(freeze, freeze)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1.0)
    module(example(net)).square().sum().backward()
    optimizer.step()
    stages = net.parameter_stages()
    for key, parameter in net.named_parameters():
        if stages[key] <= depth:
            assert torch.equal(parameter, before[key]), key
    for key, module_ in net.named_modules():
        if isinstance(module_, _BatchNorm):
            frozen = not module_.weight.requires_grad
            same = torch.equal(module_.running_mean, before[f"{key}.running_mean"])
            assert same == frozen, f"{key}: frozen statistics must stay, the others move"
    changed = [key for key, p in net.named_parameters() if not torch.equal(p, before[key])]
    assert bool(changed) == (freeze != "all")


@pytest.mark.parametrize("name", names())
def test_what_is_frozen_is_in_eval_mode_after_every_call_of_train(name):
    net = tiny(name)
    module = task(net, freeze=1)
    module.train()
    assert not net.stem.training
    assert not net.stages[0].training
    assert all(stage.training for stage in net.stages[1:])
    module.eval()
    module.train()
    assert not net.stem.training


@pytest.mark.parametrize("name", names())
def test_a_stage_that_is_not_built_cannot_be_frozen(name):
    with pytest.raises(ValueError, match=r"task\.freeze=77 must be none, all or a built stage \(0=stem"):
        prepare(tiny(name), ClassificationOptions(freeze=77))


@pytest.mark.parametrize("name", names())
def test_batch_statistics_stay_on_request_or_the_request_is_refused(name):
    net = tiny(name)
    options = ClassificationOptions(batch_norm="eval")
    if not any(isinstance(m, _BatchNorm) for m in net.modules()):
        with pytest.raises(ValueError, match=r"task\.batch_norm=eval, but this architecture has no batch norm"):
            prepare(net, options)
        return
    prepare(net, options)
    net.train()
    keep_in_eval(net, options)
    before = {key: value.clone() for key, value in net.state_dict().items() if "running" in key}
    net(example(net))
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("head", ["linear", "multi_level"])
@pytest.mark.parametrize("name", names())
def test_every_trainable_parameter_gets_a_gradient(name, head):
    net = tiny(name, out_indices=[1, 2])
    module = task(net, head=head).train()
    module(example(net)).cos().sum().backward()
    without = [key for key, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@pytest.mark.parametrize("name", names())
def test_rates_fall_towards_the_image_and_only_products_decay(name):
    net, head = tiny(name), nn.Linear(4, 2)
    options = AdamWOptions(lr=1.0, backbone_lr=0.5, layer_decay=0.5, weight_decay=0.1)
    groups = parameter_groups(net, head, options)
    rate = {id(p): g["lr"] for g in groups for p in g["params"]}
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    trainable = [p for p in [*net.parameters(), *head.parameters()] if p.requires_grad]
    assert sorted(rate) == sorted(map(id, trainable)), "each once"
    assert rate[id(head.weight)] == 1.0
    layers = net.parameter_layers()
    deepest = max(layers.values())
    for key, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert rate[id(parameter)] == 0.5 * 0.5 ** (deepest - layers[key])
            assert decay[id(parameter)] in (0.0, 0.1)
            if parameter.ndim < 2:
                assert decay[id(parameter)] == 0.0, key
    assert decay[id(head.weight)] == 0.1
    assert decay[id(head.bias)] == 0.0


def test_the_schedule_rises_then_falls_to_its_end():
    factor = make("schedule", CosineOptions(warmup_epochs=2, final=0.1), total_steps=100, steps_per_epoch=10)
    rise, fall = [factor(i) for i in range(20)], [factor(i) for i in range(20, 100)]
    assert rise == sorted(rise)
    assert 0 < rise[0] < 0.1
    assert fall == sorted(fall, reverse=True)
    assert fall[0] == 1.0
    assert factor(100) == pytest.approx(0.1)
    constant = make("schedule", ConstantOptions(warmup_epochs=0), 100, 10)
    assert {constant(i) for i in range(100)} == {1.0}


@pytest.mark.parametrize("name", names())
def test_the_linear_head_reads_the_last_map_and_the_other_all(name):
    for head, count in (("linear", 1), ("multi_level", 2)):
        net = tiny(name, out_indices=[1, 2])
        module = task(net, head=head).eval()
        maps = net(example(net)).feature_maps
        other = [torch.zeros_like(maps[0]), maps[1]]
        same = torch.equal(module.head(maps), module.head(other))
        assert same == (count == 1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AdamWOptions(lr=0), "optim: lr=0"),
        (lambda: AdamWOptions(layer_decay=1.5), "optim: layer_decay=1.5"),
        (lambda: CosineOptions(warmup_epochs=-1), "schedule: warmup_epochs=-1"),
        (lambda: ClassifierOptions(dropout=1.0), "head: dropout=1.0"),
        (lambda: ClassificationOptions(label_smoothing=1.0), "task: label_smoothing=1.0"),
    ],
)
def test_impossible_options_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
