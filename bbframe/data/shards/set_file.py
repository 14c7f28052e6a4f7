"""The file `shards.json` of a set: what the set is, and which files it should have."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from bbframe.data.shards.shard_places import ShardFile
from bbframe.schema import Length, Options, Range, Text, parse

SET_FILE = "shards.json"
UNFINISHED = ".unfinished.json"  # what a folder holds that is no set yet
MOST_SET_BYTES = 2**28
Count = Annotated[int, Range(0, 2**40)]
Digest = Annotated[str, Text("64 hexadecimal digits", "[0-9a-f]{64}")]
PlainName = Annotated[str, Text("a file name without folders", r"(?!\.)[^/\\\x00]{1,200}")]


@dataclass(frozen=True, kw_only=True)
class FileEntry(Options):
    """A file of a set."""

    prefix = ""

    file: PlainName
    bytes: Count
    sha256: Digest
    images: Count = 0

    def shard(self) -> ShardFile:
        """The file as its place finds it."""
        return ShardFile(self.file, self.bytes, self.sha256, self.images)


@dataclass(frozen=True, kw_only=True)
class PartEntry(Options):
    """A part: its index, its shards, what its annotations call the classes, and how its images are turned."""

    prefix = ""

    index: dict[str, Any]
    shards: tuple[dict[str, Any], ...]
    category_ids: tuple[int, ...] | None = None
    as_stored: bool = False

    def entries(self) -> tuple[FileEntry, list[FileEntry]]:
        """The index and the shards."""
        return parse(FileEntry, self.index, "index"), [parse(FileEntry, entry, "shards") for entry in self.shards]


@dataclass(frozen=True, kw_only=True)
class SetFile(Options):
    """The content of `shards.json`; `id` is in every tar of the set, `kind` and `assumed` are those of the source."""

    prefix = ""

    version: Literal[1] = 1
    format: Literal["webdataset", "litdata"] = "webdataset"
    id: Annotated[str, Text("16 hexadecimal digits", "[0-9a-f]{16}")]
    kind: Annotated[str, Text()]
    task: Literal["classification", "detection"]
    class_names: Annotated[tuple[str, ...], Length(1, 10**7)]
    category_ids: tuple[int, ...] | None = None
    bits: Annotated[int, Range(1, 16)] | None = None
    masks: bool = False
    assumed: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any]

    def part_entries(self) -> dict[str, PartEntry]:
        """The parts by their names."""
        if "train" not in self.parts or set(self.parts) - {"train", "val", "test"}:
            raise ValueError("parts must be train, val and test, or some of them with train")
        return {name: parse(PartEntry, self.parts[name], f"parts: {name}") for name in self.parts}

    def to_text(self) -> str:
        """The file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> SetFile:
        """Read the file. Raises ValueError for what is none."""
        try:
            data = json.loads(content[: MOST_SET_BYTES + 1])
        except (ValueError, RecursionError) as error:
            raise ValueError("is no JSON, or breaks off") from error
        found = parse(cls, data, "it")
        found.part_entries()
        return found
