"""Networks in parts: every backbone computes what it computes as a whole; refused options; the optimizer's state."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from bbframe import fast
from bbframe.run.sharded_options import check_sharded
from bbframe.run.sharded_strategy import ShardedStrategy, strategy_of, whole_state
from tests.tiny import names, tiny


@pytest.fixture(scope="module", autouse=True)
def mesh():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,), mesh_dim_names=("data_parallel",))
    dist.destroy_process_group()


def part(network: nn.Module, mesh) -> ShardedStrategy:
    strategy = ShardedStrategy()
    strategy._device_mesh, strategy._model = mesh, network
    strategy.parallel_devices, strategy.cluster_environment = [torch.device("cpu")], None
    strategy._shard(network)
    return strategy


class Network(nn.Module):
    """A backbone and a head, as a task has them."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.channels[-1], 3)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(x).feature_maps
        return self.head(maps[-1].mean((2, 3))).square().mean() + sum(map_.square().mean() for map_ in maps)


@pytest.mark.parametrize("converted", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize("name", names())
def test_a_backbone_in_parts_computes_what_the_whole_one_does(name, converted, mesh):
    torch.manual_seed(0)
    whole = Network(tiny(name))
    (fast.convert if converted else fast.plain)(whole.backbone)
    for parameter in whole.parameters():  # as parts must be; BatchNorm over few pixels makes much of a rounding
        parameter.data = parameter.data.contiguous()
    parted = copy.deepcopy(whole)
    strategy = part(parted, mesh)
    assert len(strategy._units()) > 2
    assert all(isinstance(parameter, DTensor) for parameter in parted.parameters())
    assert list(parted.state_dict()) == list(whole.state_dict())
    top = whole.backbone.config.stages[-1].stride
    x = torch.randn(3, 3, 3 * top, 3 * top)  # so that statistics are those of some pixels
    for mode in (True, False):
        losses = []
        for network in (whole.train(mode), parted.train(mode)):
            torch.manual_seed(1)
            losses.append(network.loss(x))
            losses[-1].backward()
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=1e-7)
    for (key, ours), theirs in zip(parted.named_parameters(), whole.parameters(), strict=True):
        assert (ours.grad is None) is (theirs.grad is None), key
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad.full_tensor(), theirs.grad, rtol=1e-4, atol=1e-6)
    left = whole_state(parted)
    assert all(torch.equal(left[key], value) for key, value in whole.state_dict().items())


def test_a_validation_gathers_the_whole_and_a_checkpoint_parts_it_again(mesh):
    network = Network(tiny("convnextv2"))
    strategy = part(network, mesh)
    strategy.on_validation_start()
    assert not any(isinstance(parameter, DTensor) for parameter in network.parameters())
    with torch.no_grad():
        network.loss(torch.randn(1, 3, 64, 64))
    assert not any(isinstance(parameter, DTensor) for parameter in network.parameters())
    strategy._lightning_module = network
    assert all(isinstance(value, DTensor) for value in strategy.lightning_module_state_dict().values())
    strategy.on_validation_end()
    assert all(isinstance(parameter, DTensor) for parameter in network.parameters())


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_whole_states_of_an_optimizer_become_parts(kind, mesh):
    whole = Network(tiny("convnextv2"))
    options = {"lr": 0.1, **({"momentum": 0.9} if kind is torch.optim.SGD else {})}
    before = kind(whole.parameters(), **options)
    whole.loss(torch.randn(2, 3, 64, 64)).backward()
    before.step()
    parted = copy.deepcopy(whole)
    strategy = part(parted, mesh)
    after = kind(parted.parameters(), **options)
    strategy.optimizers = [after]
    strategy.load_optimizer_state_dict({"optimizer_states": [before.state_dict()]})
    for ours, theirs in zip(parted.parameters(), whole.parameters(), strict=True):
        for key, value in before.state[theirs].items():
            found = after.state[ours][key]
            assert isinstance(found, DTensor) is (value.shape == theirs.shape), key
            torch.testing.assert_close(found.full_tensor() if isinstance(found, DTensor) else found, value)
    assert not after._optimizer_load_state_dict_pre_hooks


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"precision": "64-true"}, "trainer: strategy='fsdp' does not train in precision='64-true'; use trainer.prec"),
        ({"precision": "16-mixed"}, "use trainer.precision=32-true or bf16-mixed or bf16-true or 16-true"),
        (
            {"accelerator": "mps"},
            "needs CUDA or processors, and this is accelerator='mps'; leave out",
        ),
        ({"target": "lightning.pytorch.callbacks.StochasticWeightAveraging"}, "use trainer.ema_decay=0.999"),
    ],
)
def test_what_needs_the_whole_network_is_refused(change, said):
    target = SimpleNamespace(target=change.pop("target", "lightning.pytorch.callbacks.Timer"))
    options = {"strategy": "fsdp", "precision": "32-true", "accelerator": "cpu", **change}
    with pytest.raises(ValueError, match="trainer: strategy='fsdp' ") as caught:
        check_sharded(SimpleNamespace(**options), [target])
    assert said in str(caught.value)
    check_sharded(SimpleNamespace(**{**options, "strategy": "ddp"}), [target])


def test_other_strategies_are_lightnings():
    assert strategy_of("ddp") == "ddp"
    assert strategy_of("deepspeed") == "deepspeed"
    assert isinstance(strategy_of("fsdp"), ShardedStrategy)
    assert strategy_of("fsdp_cpu_offload").offload
