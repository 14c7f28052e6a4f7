"""What `torch.save` wrote, read as data: no code of the file runs, and it takes no more memory than it holds."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator, Set
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch

# calls that torch allows, and that make any amount of memory from a number
_ALLOCATES = re.compile(r"builtins\.bytearray|torch\._utils\._rebuild_device_tensor\w*|torch\.(\w+\.)?\w+Tensor")
# kinds of plain data that people keep beside weights; each gets a stand-in
_PLAIN = re.compile(
    r"(numpy|pathlib|datetime|omegaconf|typing)\..*|argparse\.Namespace|collections\.(defaultdict|deque)"
    r"|builtins\.(int|float|str|bool|list|dict|tuple|slice)"
)
_ZIP = b"PK\x03\x04"  # by this torch tells its two formats apart
_MOST_COPIES = 20  # times its own size that a pickle may hand to calls; a training's own stays below 4


class HoldsCodeError(ValueError):
    """A file that cannot be read without running what it names."""


class _StandIn(list[Any]):
    """Stands where an object of another library would stand, and keeps nothing of it."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Nothing."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def load_plain(source: Path | bytes, stand_ins: bool = False) -> Any:
    """The tensors and plain containers that a file, or its content, holds; the tensors of a path are mapped from it.

    With `stand_ins`, an empty object replaces each of NumPy's, a path, a date, or the arguments of a program. Raises
    HoldsCodeError when the file names anything else, and another error of torch's or pickle's when it is damaged.
    """
    names: set[str] = set()
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        for pickled in _pickles(file):
            names |= _named(pickled)
    if heavy := next(filter(_ALLOCATES.fullmatch, sorted(names)), None):
        raise HoldsCodeError(f"it calls {heavy}, which may take any amount of memory")
    known = [_stand_in(name) for name in sorted(names) if stand_ins and _PLAIN.fullmatch(name)]
    mapped = isinstance(source, Path)
    try:
        with torch.serialization.safe_globals(known), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Validating sparse tensor")
            data = source if isinstance(source, Path) else io.BytesIO(source)
            return torch.load(data, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise HoldsCodeError(f"it holds {code[1]}, which is code") from error
        raise


def load_known(data: bytes, known: Set[str]) -> Any:
    """What a pickle holds whose classes and functions are all `known`, by their full names.

    Raises HoldsCodeError for any other, ValueError when it copies itself into more memory than it takes, and another
    error of pickle's when it is damaged.
    """

    class Known(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if f"{module}.{name}" not in known:
                raise HoldsCodeError(f"it holds {module}.{name}, which is code")
            return super().find_class(module, name)

    _named(io.BytesIO(data))
    return Known(io.BytesIO(data)).load()


def is_stand_in(value: Any) -> bool:
    """Whether a value stands for an object of another library."""
    return isinstance(value, _StandIn)


def _stand_in(name: str) -> Any:
    module, _, last = name.rpartition(".")
    if last != "defaultdict":
        return type(last, (_StandIn,), {"__module__": module, "__qualname__": last})

    def empty(*_: Any) -> dict[Any, Any]:
        return {}

    empty.__module__, empty.__qualname__ = module, last  # torch fills a dict alone
    return empty


def _pickles(file: BinaryIO) -> Iterator[BinaryIO]:
    """The pickles of a file in either of torch's formats, each where it starts."""
    start = file.read(len(_ZIP))
    file.seek(0)
    if start != _ZIP:
        for _ in range(5):  # a magic number, a version, the machine, the content, the names of the storages
            yield file
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise HoldsCodeError("it is a TorchScript program, which is code")
        for entry in entries:
            if entry.filename.lower().endswith("data.pkl"):
                yield io.BytesIO(archive.read(entry))


def _named(file: BinaryIO) -> set[str]:
    """The globals that a pickle names, from its instructions alone.

    Each object on the stack is a list of one number: the bytes that it was made of. Raises ValueError when calls get
    the same objects again and again, which would copy a small file into any amount of memory.
    """
    names: set[str] = set()
    memo: dict[Any, list[int]] = {}
    stack: list[list[int]] = []
    mark: list[int] = []
    handed, begin = 0, file.tell()
    for op, argument, _ in pickletools.genops(file):
        if op.name == "GLOBAL":
            names.add(_current(str(argument)))
        if op.name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif op.name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif op.name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif op.name == "MARK":
            stack.append(mark)
        else:
            before, parts = list(op.stack_before), []
            if pickletools.markobject in before:
                at = next(i for i in range(len(stack) - 1, -1, -1) if stack[i] is mark)
                parts, stack[at:] = stack[at + 1 :], []
                before = before[: before.index(pickletools.markobject)]
            if before:
                parts, stack[-len(before) :] = stack[-len(before) :] + parts, []
            size = 1 + (len(argument) if isinstance(argument, (str, bytes)) else 0) + sum(part[0] for part in parts)
            size = min(size, 2**62)
            handed += size if op.name in ("REDUCE", "NEWOBJ", "BUILD") else 0
            if op.name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"):
                parts[0][0] = size
                stack.append(parts[0])
            else:
                stack += [[size] for _ in op.stack_after]
    if handed > _MOST_COPIES * (file.tell() - begin) + 10_000:
        raise ValueError("it copies the same objects again and again, into more than it holds")
    return names


def _current(argument: str) -> str:
    """A global as Python 3 calls it, as torch looks it up."""
    module, _, name = argument.partition(" ")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"
