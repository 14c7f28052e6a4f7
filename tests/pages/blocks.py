"""The blocks of the pages: what a fence holds, and what a test does with it.

A fence's first word says its kind, and `title="..."` may say more:

```bash                                commands of ours, one a line: run
```console                             `$ command` and what it prints: run and compared; a line `...` stands for any
                                       lines, and `...` within a line for any text
```python                              run, in one namespace a page
```python title="my_parts.py"          a file: written, then used by the blocks below it; a .sh by test_machines.py
```yaml title="folder/group/x.yaml"    likewise
```text                                what a long run printed, or a tree of files: shown, not run
```python title="timm"                 another library's code or command, by its name: parsed, its imports tried
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from docs.rooms import ROOT

KINDS = {"bash", "console", "python", "yaml", "text"}
OTHERS = {"transformers", "timm", "mmdetection", "lightning-hydra-template", "Ultralytics"}
GENERATED = {"options.md"}  # a table without blocks
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is that of its fence, counted from 1."""

    page: Path
    line: int
    kind: str
    title: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def use(self) -> str:
        """What a test does with it: run, compare, write, parse or show; an unknown kind is an AssertionError."""
        assert self.kind in KINDS, f"{self.place}: no kind of block {self.kind!r}"
        if self.title in OTHERS:
            return "parse"
        if self.kind == "text":
            return "show"
        if self.title:
            assert re.fullmatch(r"[\w/.-]+\.(py|yaml|json|sh)", self.title), f"{self.place}: {self.title!r} is no file"
            return "write"
        assert self.kind != "yaml", f"{self.place}: a file needs a title, its name"
        return {"bash": "run", "python": "run", "console": "compare"}[self.kind]


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        indent, info, body = match.groups()
        kind, _, rest = info.strip().partition(" ")
        title = _TITLE.search(rest)
        body = "\n".join(line.removeprefix(indent) for line in body.splitlines()) + "\n"
        found.append(Block(page, text[: match.start()].count("\n") + 1, kind, title[1] if title else "", body))
    assert text.count("```") == 2 * len(found), f"{page}: a fence is not closed"
    return found


def command_lines(block: Block) -> list[list[str]]:
    """The words of each command of a block, comments left out; a backslash joins lines."""
    text = block.text.replace("\\\n", " ")
    if block.kind == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def dialogue(block: Block) -> list[tuple[list[str], list[str]]]:
    """The commands of a console block, each with the lines that it prints."""
    found: list[tuple[list[str], list[str]]] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append((shlex.split(line[2:], comments=True), []))
        else:
            assert found, f"{block.place}: begins with no command"
            found[-1][1].append(line)
    return found


BLOCKS = [block for page in PAGES if page.name not in GENERATED for block in blocks_of(page)]
