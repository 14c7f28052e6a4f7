"""Initial weights: every one is drawn, by its own distribution, and once."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.overrides import TorchFunctionMode

from bbframe import AutoBackbone
from bbframe.auto import backbone_class
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.hub.late_draws import _DRAWS, LateDraws
from bbframe.hub.strict_loading import load_weights
from bbframe.keymap import KeyMap
from tests.own import OwnBackbone, OwnConfig
from tests.tiny import cases, golden_config, names, tiny

every_name = pytest.mark.parametrize("name", names())


class Draws(TorchFunctionMode):
    """Counts how often each tensor is drawn."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in _DRAWS:
            self.counts[(args[0] if args else kwargs["tensor"]).data_ptr()] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def nan_for_empty():
    """Memory that nobody has written reads as NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", cases())
@pytest.mark.usefixtures("nan_for_empty")
def test_late_draws_give_every_tensor_the_distribution_that_it_has_without_them(case):
    config = golden_config(case)
    torch.manual_seed(0)
    late = AutoBackbone.from_config(config).state_dict()
    plain = type.__call__(backbone_class(config.model_type), config).state_dict()
    assert late.keys() == plain.keys()
    for key, expected in plain.items():
        value = late[key]
        assert value.isfinite().all(), key
        if expected.numel() < 2 or (expected == expected.flatten()[0]).all():
            assert torch.equal(value, expected), key
        else:
            error = (2 / expected.numel()) ** 0.5  # of the difference of two standard deviations, relative
            assert (value.std() / expected.std()).item() == pytest.approx(1, abs=6 * error + 1e-6), key
            assert (value.mean() / expected.std()).item() == pytest.approx(0, abs=6 * error + 1e-6), key


@every_name
def test_a_new_backbone_draws_each_weight_once(name):
    with Draws() as draws:
        tiny(name)
    assert draws.counts
    assert set(draws.counts.values()) == {1}


@every_name
def test_loading_draws_only_what_the_checkpoint_lacks(name, tmp_path):
    net = tiny(name)
    net.save_pretrained(tmp_path)
    before = torch.get_rng_state()
    loaded = AutoBackbone.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.state_dict().keys() == net.state_dict().keys()
    for key, value in loaded.state_dict().items():
        assert not value.is_meta
        assert torch.equal(value, net.state_dict()[key]), key
    grey = AutoBackbone.from_pretrained(tmp_path, num_channels=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.isfinite().all() for parameter in grey.parameters())


@pytest.mark.usefixtures("nan_for_empty")
def test_what_a_checkpoint_lacks_begins_as_in_a_new_backbone(tmp_path):
    class Half(OwnBackbone):
        keys = KeyMap("embed  stem\nlayer.{}  stages.{}", fresh=["layer.*"])

    (tmp_path / "config.json").write_text(json.dumps(OwnConfig(width=32).to_dict()))
    stem = {"embed.weight": torch.full((32, 3, 1, 1), 2.0), "embed.bias": torch.zeros(32)}
    save_file(stem, tmp_path / "model.safetensors")
    config = OwnConfig(width=32)
    with LateDraws():
        net = Half(config)
        load_weights(net, [Half.keys], Checkpoint(tmp_path))
    assert torch.equal(net.stem.weight, stem["embed.weight"])
    assert torch.equal(net.stem.bias, stem["embed.bias"])
    bound = (32 * 2 * 2) ** -0.5  # of torch's own initial weights
    for parameter in net.stages.parameters():
        assert bound / 2 < parameter.abs().max() <= bound


def test_a_backbone_of_ones_own_keeps_the_initial_weights_of_torch():
    net = OwnBackbone(OwnConfig(width=64))
    bound = (64 * 2 * 2) ** -0.5
    for parameter in net.stages.parameters():
        assert bound / 2 < parameter.abs().max() <= bound


# the context itself


def later(change):
    """What becomes of the numbers 0..3 when `change` is done to them, in a context of late draws, and their draws."""
    parameter = nn.Parameter(torch.arange(4.0))
    with Draws() as draws, LateDraws(), torch.no_grad():
        change(parameter)
    return parameter.detach(), draws.counts[parameter.data_ptr()]


def test_the_last_of_several_draws_is_made():
    def change(x):
        nn.init.kaiming_uniform_(x.view(2, 2))  # no parameter: at once
        nn.init.normal_(x, mean=1000.0)
        nn.init.uniform_(x, 5, 6)

    value, count = later(change)
    assert ((value >= 5) & (value <= 6)).all()
    assert count == 2


@pytest.mark.parametrize(
    "overwrite",
    [
        lambda x: x.copy_(torch.full((4,), 7.0)),
        lambda x: x.fill_(7.0),
        lambda x: nn.init.constant_(x, 7.0),
        lambda x: x.zero_().add_(7.0),
    ],
)
def test_what_is_overwritten_is_not_drawn(overwrite):
    value, count = later(lambda x: overwrite(nn.init.normal_(x)))
    assert value.tolist() == [7.0] * 4
    assert count == 0


@pytest.mark.parametrize(
    "scale",
    [
        lambda x: x.mul_(1000.0),
        lambda x: x.data.mul_(1000.0),
        lambda x: x.detach().mul_(1000.0),
        lambda x: x.view(2, 2)[0].mul_(1000.0) + x[2:].mul_(1000.0),
        lambda x: x.copy_(torch.stack([1000.0 * v for v in x.unbind()])),
        lambda x: torch._foreach_mul_([x], 1000.0),
    ],
)
def test_what_is_read_is_drawn_before(scale):
    value, count = later(lambda x: scale(nn.init.uniform_(x, 1, 2)))
    assert ((value >= 1000) & (value <= 2000)).all()
    assert count == 1


def test_an_inner_context_leaves_its_draws_to_the_outer_one():
    parameter = nn.Parameter(torch.zeros(4))
    with Draws() as draws, LateDraws():
        with LateDraws():
            nn.init.normal_(parameter)
        assert not draws.counts
        with torch.no_grad():
            parameter.copy_(torch.ones(4))
    assert parameter.tolist() == [1.0] * 4
    assert not draws.counts
