"""Weights in memory, in the place of a checkpoint's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bbframe.hub.checkpoint_files import Checkpoint, WeightsFile
from bbframe.hub.pickled_weights import pick_weights

_SOURCE = "state"  # what errors and reports call it


class StateDict(Checkpoint):
    """A checkpoint whose tensors are in memory: a mapping from names to tensors, or a module that has such.

    What a training tool has put around it, as in `{"model": {...}}`, is taken off. `config` is the data of the
    `config.json` that would stand beside it. Raises ValueError for anything else.
    """

    def __init__(self, state: Mapping[str, Any] | nn.Module, config: dict[str, Any] | None = None):
        content = state.state_dict() if isinstance(state, nn.Module) else state
        if not isinstance(content, Mapping):
            raise ValueError(
                f"{_SOURCE}: a {type(state).__name__} must be a mapping from names to tensors, or a module"
            )
        self.source, self.path, self.local = _SOURCE, Path(_SOURCE), True
        self._sha256, self._hub, self._note = None, None, ""
        self._config = config
        tensors, picked = _picked(content)
        self._tensors = [WeightsFile(_SOURCE, "", tensors, picked)]

    @property
    def config(self) -> dict[str, Any] | None:
        return self._config

    @property
    def record(self) -> None:
        return None

    @property
    def preprocessor(self) -> None:
        return None

    @property
    def weights(self) -> list[WeightsFile]:
        return self._tensors

    def file(self, name: str) -> None:
        return None

    def choice(self, prefixes: Sequence[str]) -> str:
        first = prefixes[0]
        return f"choose one: {{name: x for name, x in state.items() if name.startswith({first!r})}}"


def _picked(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    try:
        return pick_weights(Path(_SOURCE), content)
    except ValueError as error:  # its advice is a command for files
        text = str(error).partition("; choose:")[0]
        raise ValueError(text if text == str(error) else f"{text}; give one of them") from error
