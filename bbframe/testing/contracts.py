"""The contract of every kind of part as a function that raises AssertionError, or ValueError for bad options."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bbframe.registry import find, make, parse_part
from bbframe.schema import parse

CHANNELS, STRIDES, SIDE, CLASSES = (8, 16, 24), (8, 16, 32), 64, 7


def check_part(kind: str, chosen: Mapping[str, Any]) -> None:
    """The part that `chosen` names, with the options in it, meets the contract of its kind."""
    if kind == "backbone":
        check_backbone_contract(find(kind, chosen["name"]).options(**{k: v for k, v in chosen.items() if k != "name"}))
        return
    options = parse_part(kind, chosen, kind)
    _check_options(kind, options, chosen)
    CHECKS[kind](options)


def _check_options(kind: str, options: Any, chosen: Mapping[str, Any]) -> None:
    """Options name their part, survive pickling, and refuse a key that they do not know."""
    assert options.name == chosen["name"]
    assert pickle.loads(pickle.dumps(options)) == options
    try:
        parse_part(kind, {**chosen, "no_such_option": 1}, kind)
    except ValueError as error:
        assert "unknown option 'no_such_option'" in str(error)  # noqa: PT017
    else:
        raise AssertionError(f"{kind} {options.name}: an unknown option was taken")


def check_backbone_contract(config: Any) -> None:
    """A backbone of this config gives the maps that the config declares, and trains.

    Checked: channels and strides of the maps of images of two shapes; a selection gives the same maps as the whole;
    the key table reads the name of every tensor both ways; every parameter of the built stages gets a gradient.
    """
    from bbframe.auto import AutoBackbone

    config = copy.deepcopy(config)
    config.out_features = config.stage_names
    torch.manual_seed(0)
    net = AutoBackbone.from_config(config).eval()
    top = math.lcm(*(stage.stride for stage in config.stages))
    for rows, columns in ((2, 3), (3, 2)):
        maps = net(torch.randn(2, config.num_channels, rows * top, columns * top)).feature_maps
        found = [tuple(x.shape) for x in maps]
        declared = [
            (2, c, rows * top // s, columns * top // s) for c, s in zip(net.channels, net.strides, strict=True)
        ]
        assert found == declared, f"the maps are {found}, and the config declares {declared}"
    check_selection(net, config)
    for name in net.state_dict():
        assert all(net.keys.ours(theirs) == name for theirs in net.keys.theirs(name)), f"{name} has no way back"
    net.train()
    maps = net(torch.randn(2, config.num_channels, 2 * top, 2 * top)).feature_maps
    sum(x.square().mean() for x in maps).backward()
    without = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, f"no gradient reaches {without}"


def check_selection(net: Any, config: Any) -> None:
    """The second stage alone is the same map as among all."""
    from bbframe.auto import AutoBackbone

    chosen = copy.deepcopy(config)
    chosen.out_features = [config.stage_names[1]]
    part = AutoBackbone.from_config(chosen).eval()
    part.load_state_dict({key: value for key, value in net.state_dict().items() if key in part.state_dict()})
    x = torch.randn(1, config.num_channels, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(part(x).feature_maps[0], net(x).feature_maps[1])


def _check_head(options: Any) -> None:
    head = make("head", options, CHANNELS, STRIDES, CLASSES)
    assert list(head.reads) == sorted(set(head.reads)), "`reads` must rise"
    assert all(0 <= i < len(CHANNELS) for i in head.reads), "`reads` are positions of the given maps"
    assert pickle.loads(pickle.dumps(head)) is not None
    maps = [torch.randn(2, c, SIDE // s, SIDE // s) for c, s in zip(CHANNELS, STRIDES, strict=True)]
    if options.task == "classification":
        scores = head.train()(maps)
        assert tuple(scores.shape) == (2, CLASSES), f"scores are {tuple(scores.shape)}, not {(2, CLASSES)}"
        _check_gradients(head, scores.square().sum())
        return
    sizes = [(SIDE, SIDE), (SIDE, SIDE // 2)]
    box = torch.tensor([[4.0, 6.0, 28.0, 30.0]])
    target = {"boxes": box, "labels": torch.tensor([3]), "masks": torch.ones(1, SIDE, SIDE, dtype=torch.uint8)}
    losses = head.train()(maps, sizes, [target, {**target, "masks": target["masks"][..., : SIDE // 2]}])
    _check_gradients(head, sum(losses.values()))
    with torch.no_grad():
        found = head.eval()(maps, sizes)
    assert len(found) == 2
    for row in found:
        count = len(row["boxes"])
        assert tuple(row["boxes"].shape) == (count, 4)
        assert tuple(row["scores"].shape) == tuple(row["labels"].shape) == (count,)
        assert ("masks" in row) == options.masks


def _check_gradients(module: nn.Module, loss: Any) -> None:
    assert torch.isfinite(loss), "the loss is not finite"
    loss.backward()
    gradients = [p.grad for p in module.parameters() if p.requires_grad and p.grad is not None]
    assert gradients, "no gradient reaches any parameter"
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def _check_loss(options: Any) -> None:
    """A scalar for both kinds of labels; a few steps along its gradient reduce it."""
    loss = make("loss", options)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(12, CLASSES, generator=generator)
    indices = torch.randint(CLASSES, (12,), generator=generator)
    for labels in (indices, nn.functional.one_hot(indices, CLASSES) * 0.9 + 0.1 / CLASSES):
        x = scores.clone().requires_grad_()
        before = loss(x, labels)
        assert before.ndim == 0, f"the loss is {tuple(before.shape)}, not a scalar"
        for _ in range(5):
            (gradient,) = torch.autograd.grad(loss(x, labels), x)
            assert torch.isfinite(gradient).all()
            x = (x - gradient).detach().requires_grad_()
        assert loss(x, labels) < before, "steps along the gradient do not reduce the loss"
    pickle.loads(pickle.dumps(loss))


def _check_metric(options: Any) -> None:
    """A scalar of several batches; the same after a reset and the same batches."""
    metric = make("metric", options, CLASSES)
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(6, CLASSES, generator=generator), torch.arange(6) % CLASSES) for _ in range(2)]
    values = []
    for _ in range(2):
        for scores, labels in batches:
            metric.update(scores, labels)
        values.append(metric.compute())
        metric.reset()
    assert values[0].numel() == 1, "a metric must be a scalar"
    assert torch.equal(values[0], values[1])
    pickle.loads(pickle.dumps(metric))


def _check_data(options: Any) -> None:
    """Batches of train, val and test, as the task takes them; two modules of one seed give the same first batch."""
    from bbframe.data import make_data
    from bbframe.preprocessing import Preprocessing

    def module() -> Any:
        return make_data(options, seed=3, preprocessing=Preprocessing(size=(32, 32)), num_channels=3, stride=32)

    data, again = module(), module()
    assert data.num_classes == len(data.class_names) > 0
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batch = next(iter(loader))
        assert len(batch["index"]) == len(batch["image"]) > 0
        if options.task == "classification":
            assert batch["image"].dtype == torch.float32
            assert len(batch["label"]) == len(batch["image"])
        else:
            assert all({"boxes", "labels"} <= target.keys() for target in batch["target"])
    first, second = (next(iter(x.train_dataloader())) for x in (data, again))
    assert torch.equal(first["index"], second["index"]), "the order must be a function of the seed"
    pairs = zip(first["image"], second["image"], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs), "augmentation must be a function of (seed, epoch, index)"
    for x in (data, again):
        x.teardown("fit")


def _check_transform(options: Any) -> None:
    """Keeps shape and type, and draws from torch's global generator alone."""
    from bbframe.data.pixels import ChosenTransforms
    from bbframe.data.seeds import torch_seed

    transform = pickle.loads(pickle.dumps(ChosenTransforms([options])))
    image = torch.randint(256, (3, 20, 24), dtype=torch.uint8)

    def changed() -> Tensor:
        with torch_seed(5):
            return transform(image.clone())

    assert torch.equal(changed(), changed()), "random numbers must come from torch's global generator"


def _check_optim(options: Any) -> None:
    """A few steps reduce a quadratic loss; the groups keep their learning rates."""
    torch.manual_seed(0)
    layers = nn.Linear(6, 6), nn.Linear(6, 1)
    groups = [
        {"params": [*layer.parameters()], "lr": options.lr * factor, "weight_decay": 0.0}
        for layer, factor in zip(layers, (0.5, 1.0), strict=True)
    ]
    optimizer = make("optim", options, groups, fused=False)
    assert [group["lr"] for group in optimizer.param_groups] == [options.lr * 0.5, options.lr]
    x, losses = torch.randn(32, 6), []
    for _ in range(20):
        loss = (layers[1](layers[0](x)) - 1).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0], "twenty steps do not reduce the loss"
    optimizer.load_state_dict(optimizer.state_dict())


def _check_schedule(options: Any) -> None:
    """A finite factor, 0 or more, at every step; a function of the step alone."""
    factor = make("schedule", options, 100, 10.0)
    values = [factor(step) for step in range(101)]
    assert all(math.isfinite(value) and value >= 0 for value in values)
    assert max(values) > 0
    assert [factor(step) for step in reversed(range(101))] == values[::-1], "a factor must depend on the step alone"


def _check_callback(options: Any) -> None:
    from lightning.pytorch import Callback

    assert isinstance(make("callback", options), Callback)


def _check_logger(options: Any) -> None:
    from lightning.pytorch.loggers import Logger

    with tempfile.TemporaryDirectory() as folder:
        logger = make("logger", options, Path(folder))
        assert isinstance(logger, Logger)
        logger.log_metrics({"train/loss": 1.0}, step=1)
        logger.finalize("success")


def _check_task(options: Any) -> None:
    from bbframe.tasks.task import Task

    cls = find("task", options.name).load()
    assert issubclass(cls, Task)
    missing = {"head", "optim", "schedule"} - inspect.signature(cls).parameters.keys()
    assert not missing, f"the constructor lacks {sorted(missing)}"
    parse(type(options), {}, "task")


CHECKS: dict[str, Callable[[Any], None]] = {
    "task": _check_task,
    "head": _check_head,
    "loss": _check_loss,
    "metric": _check_metric,
    "data": _check_data,
    "transform": _check_transform,
    "optim": _check_optim,
    "schedule": _check_schedule,
    "callback": _check_callback,
    "logger": _check_logger,
}
