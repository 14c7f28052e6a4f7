"""Which options a sharded training has, and which it refuses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bbframe.run.configuration import TrainerOptions

SHARDED = ("fsdp", "fsdp_cpu_offload")  # the values of trainer.strategy
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-true")


def check_sharded(options: TrainerOptions, callbacks: Iterable[Any]) -> None:
    """Raise ValueError for an option, or one of Lightning's callbacks, that needs the network as a whole."""
    given = f"trainer: strategy={options.strategy!r}"
    if options.strategy not in SHARDED:
        return
    if options.precision not in PRECISIONS:
        menu = " or ".join(PRECISIONS)
        raise ValueError(f"{given} does not train in precision={options.precision!r}; use trainer.precision={menu}")
    if options.accelerator in ("mps", "tpu"):
        raise ValueError(
            f"{given} needs CUDA or processors, and this is accelerator={options.accelerator!r}; leave out "
            "trainer.strategy"
        )
    if any(getattr(part, "target", "").endswith("StochasticWeightAveraging") for part in callbacks):
        raise ValueError(
            f"{given} has no use for StochasticWeightAveraging; use trainer.ema_decay=0.999, or trainer.strategy=ddp"
        )
