"""What the pages and the README say is tried: every block is run, compared, written, parsed or shown."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from docs.rooms import ROOT
from tests.pages import commands
from tests.pages.blocks import BLOCKS, PAGES, Block, blocks_of, command_lines, dialogue

IDS = [block.place for block in BLOCKS]
FOLDERS = {
    "outputs/classification/<run>": ["outputs/classification/run0", "outputs/classification/run1"],
    "outputs/detection/<run>": ["outputs/detection/run0"],
    "outputs/classification/<sweep>": ["outputs/classification/sweep0"],
}
# run by `make test`; the others by `make slow`
QUICK = {"errors.md"}


def test_every_block_is_of_a_known_kind():
    uses = Counter(block.use for block in BLOCKS)
    assert set(uses) <= {"run", "compare", "write", "parse", "show"}
    assert uses["run"] >= 50
    assert uses["compare"] >= 10
    for block in BLOCKS:
        assert block.use != "run" or block.kind == "python" or command_lines(block), f"{block.place}: runs nothing"


def test_a_block_of_an_unknown_kind_is_noticed():
    for kind, title in (("sh", ""), ("", ""), ("yaml", ""), ("python", "Figure 1")):
        with pytest.raises(AssertionError, match=r"README\.md:3"):
            assert Block(ROOT / "README.md", 3, kind, title, "x = 1\n").use


def test_every_page_is_in_the_navigation():
    stated = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f"{page.relative_to(ROOT / 'docs')}\n" in stated, page


def filled(text: str, typed: str = "") -> str:
    """The text with the folders of the test in the place of `<run>` and `<sweep>`; one line has different runs.

    Lines that begin with `typed` are commands: nothing else may stand in angle brackets there.
    """
    for name, folders in FOLDERS.items():
        for line in [line for line in text.splitlines() if name in line]:
            new = line
            for index in range(line.count(name)):
                new = new.replace(name, folders[min(index, len(folders) - 1)], 1)
            text = text.replace(line, new, 1)
    lines = [line.partition("#")[0] for line in text.splitlines() if line.startswith(typed)]
    left = re.findall(r"<[a-z ]+>", "\n".join(lines))
    assert not left, f"nothing stands for {left}"
    return text


def replaced(block: Block) -> Block:
    typed = "$ " if block.kind == "console" else ""
    return Block(block.page, block.line, block.kind, block.title, filled(block.text, typed))


@pytest.mark.parametrize("block", BLOCKS, ids=IDS)
def test_a_block_is_what_it_says(block):
    """Python parses, names that are imported exist, commands that are not run could be."""
    if block.kind == "python":
        for node in ast.walk(ast.parse(block.text, block.place)):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and importlib.util.find_spec(node.module.split(".")[0])
            ):
                module = importlib.import_module(node.module)
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []
    elif block.use in ("run", "compare"):
        for words in command_lines(block):
            if not commands.is_ours(words, written(block.page)):
                commands.check(words)


def written(page: Path) -> set[str]:
    """The files that a page holds."""
    return {block.title for block in BLOCKS if block.page == page and block.use == "write"}


def extras(page: Path) -> list[tuple[str, str] | None]:
    found = {commands.extra_of(block.text) for block in blocks_of(page) if block.use in ("run", "compare")}
    return [None, *sorted(found - {None})]


CASES = [
    pytest.param(
        page,
        extra,
        marks=[getattr(pytest.mark, extra[1])] if extra else [] if page.name in QUICK else [pytest.mark.slow],
        id=f"{page.relative_to(ROOT)}{f'-{extra[0]}' if extra else ''}",
    )
    for page in PAGES
    for extra in extras(page)
    if any(block.use in ("run", "compare", "write") for block in blocks_of(page))
]


@pytest.mark.long
@pytest.mark.parametrize(("page", "extra"), CASES)
def test_a_page_runs(page, extra, place, finished, hub, monkeypatch, capfd):
    """A page's blocks, in order, in one folder and one namespace; with an extra, the blocks too that need it."""
    if extra:
        pytest.importorskip(extra[0])
    text = page.read_text(encoding="utf-8")
    hub.offer(text)
    for name in [name for mark, names in FOLDERS.items() if mark in text for name in names]:
        shutil.copytree(finished(name), place / name)
    names = {"__name__": "page"}
    for block in map(replaced, blocks_of(page)):
        needed = commands.extra_of(block.text)
        if block.use == "write":
            path = place / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            importlib.invalidate_caches()
        elif block.use in ("run", "compare") and needed in (None, extra):
            perform(block, names, monkeypatch, capfd)


def perform(block: Block, names, monkeypatch, capfd) -> None:
    if block.kind == "python":
        exec(compile(block.text, block.place, "exec"), names)
    elif block.kind == "console":
        for words, expected in dialogue(block):
            capfd.readouterr()
            commands.run(words, monkeypatch, as_typed=True)
            out, err = capfd.readouterr()
            compare(expected, (out + err).splitlines(), f"{block.place}: {' '.join(words)}")
    else:
        for words in command_lines(block):
            if commands.is_ours(words, written(block.page)) and not commands.why_not_run(words):
                began = time.monotonic()
                code = commands.run(words, monkeypatch)
                with capfd.disabled():
                    print(f"\n{time.monotonic() - began:6.1f} s  {' '.join(words)}", end="", flush=True)
                assert code == 0, f"{block.place}: {' '.join(words)}: {capfd.readouterr().err[-2000:]}"


def compare(expected: list[str], found: list[str], where: str) -> None:
    """The lines that a page shows are those that were printed; `...` stands for any lines, or any text in a line."""
    pattern = "\n".join(r"[^\n]*(\n[^\n]*)*?" if line == "..." else _line(line) for line in expected)
    actual = "\n".join(line.rstrip() for line in found)
    assert re.fullmatch(pattern, actual), f"{where}\nshown:\n" + "\n".join(expected) + f"\nprinted:\n{actual}"


def _line(text: str) -> str:
    return ".*".join(map(re.escape, text.rstrip().split("...")))


def test_what_is_compared_may_differ_where_dots_stand_alone():
    compare(["a ... c", "...", "z"], ["a b c", "d", "e", "z"], "here")
    for wrong in (["a b"], ["a b c", "z", "y"]):
        with pytest.raises(AssertionError, match="here"):
            compare(["a ... c", "...", "z"], wrong, "here")
