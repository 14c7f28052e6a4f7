"""python -m bbframe.hub.convert_weights FILE TO [KEY]: the weights of a file that you trust, as safetensors.

FILE may need code to be read, and that code runs. KEY chooses one of several: a key of the file, or a prefix of names.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bbframe.hub.client import first_line
from bbframe.hub.pickled_weights import pick_weights


def convert_file(source: Path, target: Path, key: str | None = None) -> str:
    """Write the weights in a file to a new file of safetensors, and say what was taken. Raises ValueError."""
    if target.exists():
        raise ValueError(f"{target}: is already there; give another name")
    try:
        if source.suffix.lower() == ".safetensors":
            data: Any = load_file(source)
        else:
            data = torch.load(source, map_location="cpu", weights_only=False)
    except (AttributeError, ImportError) as error:
        raise ValueError(
            f"{source}: its code is not here ({first_line(error)}); run this in the folder of that code"
        ) from error
    except Exception as error:
        raise ValueError(f"{source}: cannot be read ({first_line(error)})") from error
    data = _plain(data)
    prefixed = {}
    if key is not None and isinstance(data, Mapping) and key not in data:
        weights, _ = pick_weights(source, data)
        prefixed = {name.removeprefix(key): value for name, value in weights.items() if name.startswith(key)}
    tensors, taken = (prefixed, f"took {key!r}") if prefixed else pick_weights(source, data, key)
    save_file({name: value.detach().to_dense().contiguous().clone() for name, value in tensors.items()}, target)
    return taken


def _plain(data: Any, depth: int = 0) -> Any:
    """Data with every module replaced by its state, and every array by a tensor."""
    if isinstance(data, nn.Module):
        return dict(data.state_dict())
    if isinstance(data, np.ndarray) and data.dtype.kind in "fiub":
        return torch.from_numpy(np.array(data, order="C", dtype=data.dtype.newbyteorder("=")))
    if isinstance(data, Mapping) and depth < 8:
        return {key: _plain(value, depth + 1) for key, value in data.items()}
    return data


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when the file was written, else 1 after one line on stderr."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) not in (2, 3):
        print("usage: python -m bbframe.hub.convert_weights FILE TO [KEY]", file=sys.stderr)
        return 1
    try:
        taken = convert_file(Path(given[0]), Path(given[1]), *given[2:])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{given[1]}: written{f'; {taken}' if taken else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
