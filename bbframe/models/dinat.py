"""DiNAT (Hassani and Shi, "Dilated Neighborhood Attention Transformer", arXiv:2209.15001)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from bbframe.keymap import KeyMap
from bbframe.models.nat import NAMES, NatBackbone, NatConfig
from bbframe.registry import register
from bbframe.schema import Range

Dilation = Annotated[int, Range(1, 1024)]


@dataclass(kw_only=True)
class DinatConfig(NatConfig):
    """NAT's, with the dilation of each block of each stage; the defaults are DiNAT-Mini's."""

    model_type: ClassVar[str] = "dinat"

    dilations: tuple[tuple[Dilation, ...], ...] = ((1, 8, 1), (1, 4, 1, 4), (1, 2, 1, 2, 1, 2), (1, 1, 1, 1, 1))

    def validate(self) -> None:
        super().validate()
        given = [list(stage) for stage in self.dilations]
        if tuple(map(len, self.dilations)) != self.depths:
            raise ValueError(
                f"dinat: dilations={given} must hold one integer for each block of each stage, "
                f"as depths={list(self.depths)} counts them"
            )

    def dilations_of(self, level: int) -> tuple[int, ...]:
        return self.dilations[level]


@register
class DinatBackbone(NatBackbone):
    """DiNAT: NAT with every other block dilated, whose windows then take every `dilation`-th row and column."""

    config_class = DinatConfig
    keys = KeyMap(NAMES, prefixes=["dinat."], ignored=["classifier.*", "layernorm.*"], fresh=["hidden_states_norms.*"])
