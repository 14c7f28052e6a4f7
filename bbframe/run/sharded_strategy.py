"""`trainer.strategy=fsdp`: parameters, gradients and the optimizer's state are sharded over the processes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from bbframe.backbone_mixin import BackboneMixin
from bbframe.run.sharded_checkpoint import write_sharded
from bbframe.run.sharded_options import SHARDED


class ShardedStrategy(ModelParallelStrategy):
    """torch's fully sharded data parallelism (FSDP2) by Lightning's strategy for it, over all processes.

    A parameter keeps its name and its place in the optimizer's groups. Each block of the backbone is one unit: its
    parameters are gathered when it runs. Training shards the network; a test runs the whole of it in every process.
    Lightning's own `fsdp` flattens the parameters of a unit into one, and needs GPUs.
    """

    def __init__(self, offload: bool = False) -> None:
        super().__init__()
        self.offload = offload

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Before it is sharded, each process has the whole network in its memory: a checkpoint is loaded into that."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def setup(self, trainer: pl.Trainer) -> None:
        """Shard the network over the processes, where it trains, then make the optimizer over the shards."""
        if trainer.state.fn == TrainerFn.FITTING:
            assert self.model is not None
            if self._layer_sync is not None:
                self.model = self._layer_sync.apply(self.model)
            self.model = self.precision_plugin.convert_module(self.model)
            for network in (self.model, *averages(trainer)):
                self._shard(network)
        ParallelStrategy.setup(self, trainer)

    def _shard(self, network: nn.Module) -> None:
        offload = CPUOffloadPolicy() if self._offloads else OffloadPolicy()
        mesh: Any = self.device_mesh["data_parallel"]
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()  # fast convolutions keep their weights in another order
        for unit in _units(network):
            unit.register_forward_hook(_without_views)  # runs before torch's own
            # also after a forward pass that no backward pass follows: outside of passes all parameters are sharded
            fully_shard(unit, mesh=mesh, reshard_after_forward=True, offload_policy=offload)

    @property
    def _offloads(self) -> bool:
        return self.offload and self.root_device.type != "cpu"

    def model_to_device(self) -> None:
        """Move what no unit has moved; parameters that are offloaded stay."""
        assert self.model is not None
        for part in self.model.children():
            if not (self._offloads and isinstance(part, FSDPModule)):
                part.to(self.root_device)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self._share_statistics()
        return super().training_step(*args, **kwargs)

    def on_validation_start(self) -> None:
        """Gather the whole network: processes may have different numbers of validation batches."""
        self._share_statistics()
        for unit in self._units():
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()

    def on_validation_end(self) -> None:
        self.reshard()

    def reshard(self) -> None:
        """Give up what `on_validation_start` has gathered, if it has; a process does this by itself."""
        for unit in self._units():
            unit.reshard()
            unit.set_reshard_after_forward(True, recurse=False)

    def _units(self) -> list[FSDPModule]:
        assert self.model is not None
        return [module for module in self.model.modules() if isinstance(module, FSDPModule)]

    def _share_statistics(self) -> None:
        """Give all processes the first one's running statistics, as DDP does."""
        if self.world_size > 1:
            assert self.model is not None
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        self.reshard()
        return ParallelStrategy.lightning_module_state_dict(self)

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        ParallelStrategy.load_model_state_dict(self, checkpoint, strict)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return ParallelStrategy.optimizer_state(self, optimizer)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """Load the state of whole tensors, of which each process keeps its part."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            hook = optimizer.register_load_state_dict_pre_hook(_with_parts)
            optimizer.load_state_dict(state)
            hook.remove()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write what a training goes on from as a folder, to which each process adds its part; the rest as a file."""
        path = Path(self.broadcast(filepath))
        if "optimizer_states" in checkpoint:
            write_sharded(checkpoint, path)
        elif whole := gathered(checkpoint):
            self.checkpoint_io.save_checkpoint(whole, path)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)


def strategy_of(name: str) -> Any:
    """What Lightning's Trainer is given for `trainer.strategy`."""
    return ShardedStrategy(offload=name == "fsdp_cpu_offload") if name in SHARDED else name


def to_train(task: Any, trainer: pl.Trainer) -> Any:
    """What a trainer trains of a task: the task itself, or a copy where the training shards the network for good."""
    return copy.deepcopy(task) if isinstance(trainer.strategy, ShardedStrategy) else task


def gathered(value: Any) -> Any:
    """Nested dicts with whole tensors on the CPU for those that are sharded, in the first process; None in others."""
    if isinstance(value, dict):
        whole = {key: gathered(inner) for key, inner in value.items()}
        return whole if torch.distributed.get_rank() == 0 else None
    if isinstance(value, DTensor):
        full = value.full_tensor()
        return full.cpu() if torch.distributed.get_rank() == 0 else None
    return value


def whole_state(module: nn.Module) -> dict[str, Any]:
    """A state dict whose tensors are whole, on the CPU of every process."""
    state = module.state_dict()
    return {name: value.full_tensor().cpu() if isinstance(value, DTensor) else value for name, value in state.items()}


@contextmanager
def resharded(trainer: pl.Trainer) -> Iterator[None]:
    """While the block runs, a network that is gathered for a validation is sharded; it is gathered at its end."""
    strategy = trainer.strategy
    if isinstance(strategy, ShardedStrategy):
        strategy.reshard()
    yield
    if isinstance(strategy, ShardedStrategy):
        strategy.on_validation_start()


def averages(trainer: pl.Trainer) -> Iterator[nn.Module]:
    """The networks of moving averages that callbacks keep."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        average = getattr(callback, "_average_model", None)
        if average is not None:
            yield average.module


def _units(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks of the backbone that have parameters, then each part of the network, which has what is left."""
    parts = [part for part in network.children() if any(True for _ in part.parameters())]
    for part in parts:
        if isinstance(part, BackboneMixin):
            yield from (block for _, block in part.blocks() if any(True for _ in block.parameters()))
    yield from parts


def _without_views(unit: nn.Module, inputs: Any, output: Any) -> Any:
    """What a unit returns, with a copy of each view: an operation in place on one would keep it from being gathered.

    Maps are often views, in another order of axes.
    """
    return tree_map_only(Tensor, lambda x: x.clone() if x.requires_grad and x._is_view() else x, output)


def _with_parts(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state with the part of each tensor that its parameter has."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def part(value: Any, parameter: Tensor) -> Any:
        if not isinstance(value, Tensor) or not isinstance(parameter, DTensor) or value.shape != parameter.shape:
            return value
        if isinstance(value, DTensor):
            return value
        mesh = parameter.device_mesh
        return distribute_tensor(value.to(mesh.device_type), mesh, parameter.placements, src_data_rank=None)

    states = {
        number: {key: part(value, parameters[number]) for key, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": states}
