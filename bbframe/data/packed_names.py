"""Very many names in little memory: their bytes one after another, and where each ends."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

# every str has such bytes, also a file name that is no UTF-8 and Python spells with lone surrogates
_ERRORS = "surrogatepass"


@dataclass(frozen=True, eq=False)
class PackedNames(Sequence[str]):
    """Names as a sequence of str: number i is the UTF-8 in `content` from `offsets[i]` up to `offsets[i + 1]`.

    A million names in a list are a million objects, which a forked worker copies page by page as soon as it counts
    references to them; these are two. `content` is anything with a buffer: bytes, or an array (bytes,) uint8, also one
    that is mapped from a file. `offsets` is an array (names + 1,) int64. Equal to any sequence of the same names.
    """

    content: Any
    offsets: np.ndarray

    @classmethod
    def of(cls, names: Iterable[str]) -> PackedNames:
        """Pack names, taken one at a time."""
        content, offsets = bytearray(), array("q", [0])
        for name in names:
            content += name.encode(errors=_ERRORS)
            offsets.append(len(content))
        return cls(bytes(content), np.array(offsets, np.int64))

    def select(self, indices: Sequence[int] | np.ndarray) -> PackedNames:
        """The names at some places, in the order given."""
        places = np.asarray(indices, np.int64)
        assert (places >= 0).all(), "places count from the start"
        starts, ends = self.offsets[places], self.offsets[places + 1]
        buffer = memoryview(self.content)
        content = b"".join(buffer[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
        return PackedNames(content, np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> PackedNames: ...

    def __getitem__(self, index: int | slice) -> str | PackedNames:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        place = range(len(self))[index]  # counts from the end where it is negative, and raises IndexError
        return str(self.content[self.offsets[place] : self.offsets[place + 1]], "utf-8", _ERRORS)

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self.offsets[1:].tolist():
            yield str(self.content[start:end], "utf-8", _ERRORS)
            start = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # unhashable, like a list

    def __repr__(self) -> str:
        few = ", ".join(map(repr, self[:3])) + (", ..." if len(self) > 3 else "")
        return f"PackedNames({len(self)}: {few})"
