"""The weights in a file that torch wrote, of whichever training tool."""

from __future__ import annotations

import io
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bbframe.hub.client import first_line
from bbframe.hub.safe_pickle import HoldsCodeError, is_stand_in, load_plain

# Under which names training tools keep the weights. An average, which is what the tools evaluate, comes first.
AVERAGES = "state_dict_ema model_ema ema_state_dict ema_model ema params_ema teacher".split()
_WRAPPERS = [
    *AVERAGES,
    *"state_dict model model_state_dict model_state module net network weights params".split(),
    *"encoder backbone student".split(),
]
_DEEPEST = 4  # wrappers inside each other


def unpickled(path: Path, content: bytes) -> tuple[dict[str, Tensor], str, Any]:
    """The tensors of a file, a line that says what was taken where it holds more, and its whole content.

    Raises ValueError when the file is damaged, names code, or holds no weights, or several of them.
    """
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):  # torch writes its archives without compression
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > 2 * len(content):
                    raise ValueError("it expands to more than it holds")
        data = load_plain(content, stand_ins=True)
    except HoldsCodeError as error:
        raise ValueError(f"{path}: not a whole file of tensors alone ({error}); {_advice(path)}") from error
    except Exception as error:
        reason = f"not a whole file of tensors alone ({first_line(error)})"
        raise ValueError(f"{path}: {reason}; fetch it again, or as .safetensors") from error
    if _way(data) is None and _foreign(data):
        raise ValueError(f"{path}: its weights are objects of another library, no tensors; {_advice(path)}")
    return *pick_weights(path, data), data


def _advice(path: Path) -> str:
    return f"fetch it as .safetensors or, where you trust it, run its code once: {conversion(path)}"


def conversion(path: Path, *key: str) -> str:
    """A command that copies the weights in a file, those below a key if given, into one of safetensors beside it."""
    name = "model" if path.name == "pytorch_model.bin" else "-".join([path.name.partition(".")[0] or "weights", *key])
    to = path.with_name(f"{name.strip('.')}.safetensors")
    to = to if not to.exists() else to.with_name(f"{to.stem}-weights.safetensors")
    return shlex.join(["python", "-m", "bbframe.hub.convert_weights", *map(_argument, (str(path), str(to))), *key])


def _argument(path: str) -> str:
    return f"./{path}" if path.startswith("-") else path


def pick_weights(path: Path, data: Any, key: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The mapping from names to tensors inside the content of a file, and a line that says what was taken.

    It is the content itself, or lies under the first of the known names that leads to one, or under the only name that
    does. A `key` chooses another. Raises ValueError when there is none, or when nobody can tell which.
    """
    keys = _way(data) if key is None else [key] if isinstance(data, Mapping) and key in data else None
    if keys is None and isinstance(data, Mapping) and key is None:
        found = [name for name, value in data.items() if _named_tensors(value)]
        if len(found) > 1:
            commands = " or ".join(conversion(path, str(name)) for name in found[:8])
            names = ", ".join(repr(str(name)[:80]) for name in found[:8])
            raise ValueError(f"{path}: holds weights under {names}; choose: {commands}")
        keys = found or None
    if keys is None:
        raise ValueError(
            f"{path}: must hold a plain mapping from names to tensors, alone or under one of {', '.join(_WRAPPERS)}"
            + (f", not {key!r}" if key else "")
        )
    inner, said = data, []
    for name in keys:
        left = ", ".join(str(other) for other in inner if other != name)
        said.append(f"took {name!r}" + (f", not {left[:200]}" if left else ""))
        inner = inner[name]
    tensors = _named_tensors(inner)
    if not tensors and key is not None:
        return pick_weights(path, inner)
    if others := [str(name) for name in inner if name not in tensors]:
        said.append(f"left out {', '.join(others)[:200]}, which are no tensors")
    return tensors, "; ".join(said)


def _way(data: Any, depth: int = 0) -> list[str] | None:
    """The known names that lead to a mapping from names to tensors, none where it is one; None where none lead."""
    if _named_tensors(data):
        return []
    if depth < _DEEPEST and isinstance(data, Mapping):
        for name in _WRAPPERS:
            inside = _way(data[name], depth + 1) if isinstance(data.get(name), Mapping) else None
            if inside is not None:
                return [name, *inside]
    return None


def _named_tensors(data: Any) -> dict[str, Tensor]:
    """The entries of a mapping that are tensors, if it is one from names and most of them are."""
    if not isinstance(data, Mapping) or not _mostly(data, lambda value: isinstance(value, Tensor)):
        return {}
    named = {key: value for key, value in data.items() if isinstance(value, Tensor)}
    return named if all(isinstance(key, str) for key in named) else {}


def _foreign(data: Any, depth: int = 0) -> bool:
    """Whether a mapping, or one below it, holds mostly objects of other libraries."""
    if depth > _DEEPEST or not isinstance(data, Mapping):
        return False
    return _mostly(data, is_stand_in) or any(_foreign(value, depth + 1) for value in data.values())


def _mostly(data: Mapping[Any, Any], test: Any) -> bool:
    """Whether more than half of the values of a mapping pass a test."""
    return 2 * sum(map(test, data.values())) > len(data)
