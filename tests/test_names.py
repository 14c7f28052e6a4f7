"""One name, one meaning: names of parts and files, docstrings, sizes of files, and the words that the prose avoids."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections import defaultdict
from pathlib import Path

import pytest

import bbframe

PACKAGE = Path(bbframe.__file__).parent
HOME = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in FILES]
# files that may share a name, and why; models/ and fast/ are treated below
SAME_FILE_NAME = {"backbone.py": "timm_backbone/backbone.py is backbone.py's contract for timm's networks"}
SAME_NAME = {"main"}  # what a command begins with
# words that are wrong wherever they stand in prose
AVOIDED = re.compile(r"\b(so many|that of|of ours|, for (it|they|there|he|she|we))\b", re.IGNORECASE)
REGISTRIES = ["pypi" + ".org", "python" + "hosted", "npm" + "js", "index" + "-url", "extra-" + "index"]
MACHINE_PATH = re.compile("(?<![\\w.~])/(work|root|home|Users|tmp)" + "/[A-Za-z]")


def definitions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """The public functions and classes at the top level of a module."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    return [node for node in nodes if isinstance(node, kinds) and node.name[0] != "_"]


def imported_names(path: Path) -> set[str]:
    """The names that a module imports from others, as "module.name"."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {
        f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__")


def is_model(path: Path) -> bool:
    return path.parent == PACKAGE / "models"


def prose(path: Path) -> str:
    """The docstrings and comments of a Python file, or all text of any other, without line breaks."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        kinds = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        parts = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
        last = 0
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                parts.append(token.string if token.start[0] != last + 1 else f"{parts.pop()} {token.string}")
                last = token.start[0]
        text = " | ".join(parts)
    return " ".join(text.replace("#", " ").split())


def tracked_files() -> list[Path]:
    """The files under version control or, in a copy without it, those of the package and the tests."""
    done = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=HOME)
    if done.returncode == 0 and done.stdout:
        return [path for name in done.stdout.split("\0") if name and (path := HOME / name).is_file()]
    return [*FILES, *HOME.glob("tests/**/*.py"), *HOME.glob("*.toml"), *HOME.glob("*.md"), HOME / "Makefile"]


@pytest.mark.long
def test_a_public_name_is_defined_in_one_module():
    """Every model file may have a Block or Stem for itself, as long as no other module imports it."""
    imported = set().union(*map(imported_names, FILES))
    owners: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        for node in definitions(path):
            if node.name in SAME_NAME:
                continue
            if not is_model(path) or f"{module_name(path)}.{node.name}" in imported:
                owners[node.name].add(module_name(path))
    assert {name: sorted(modules) for name, modules in owners.items() if len(modules) > 1} == {}


def test_a_file_name_is_found_once():
    """A model file is named after its architecture, a file of fast/ after the file of layers/ that it replaces."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        replaces = path.parent == PACKAGE / "fast" and (PACKAGE / "layers" / path.name).exists()
        if not is_model(path) and not replaces and path.name not in {"__init__.py", *SAME_FILE_NAME}:
            places[path.name].append(str(path.relative_to(PACKAGE)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_public_parts_have_a_docstring(path):
    missing = [node.name for node in definitions(path) if not ast.get_docstring(node) and not is_overload(node)]
    assert missing == []


def is_overload(node: ast.AST) -> bool:
    return any(ast.unparse(item).endswith("overload") for item in getattr(node, "decorator_list", []))


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_file_has_at_most_300_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


PROSE = [
    *FILES,
    HOME / "README.md",
    HOME / "train.py",
    *sorted(HOME.glob("docs/**/*.md")),
    *sorted(HOME.glob("conf/**/*.yaml")),
    *sorted(HOME.glob("recipes/**/*.yaml")),
    *sorted(HOME.glob("benchmarks/*.py")),
]


@pytest.mark.parametrize("path", PROSE, ids=[str(path.relative_to(HOME)) for path in PROSE])
def test_prose_avoids_words_that_must_be_read_twice(path):
    text = prose(path)
    assert [text[max(0, match.start() - 40) : match.end() + 20] for match in AVOIDED.finditer(text)] == []


def test_what_the_prose_avoids_is_found(tmp_path):
    """The check itself: in docstrings and comments, over line breaks, and not inside of other words or in code."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        '"""As so\nmany rows."""\n# the eps is that\n# of the norm\nx = 1  # left out, for it is big, of ours\n'
    )
    assert [match[0] for match in AVOIDED.finditer(prose(wrong))] == ["so many", "that of", ", for it", "of ours"]
    right = tmp_path / "right.py"
    right.write_text('"""That often, for items."""\n\n# say that\n\n# of yours, somany\nx = "so many"\n')
    assert not AVOIDED.findall(prose(right))


def test_no_file_names_a_registry_or_a_machine():
    """Where packages come from is the user's own setting, and a path of one machine is wrong on every other."""
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or an archive
        found += [f"{path.relative_to(HOME)}: {word}" for word in REGISTRIES if word in text]
        found += [f"{path.relative_to(HOME)}: {match[0]}" for match in MACHINE_PATH.finditer(text)]
    assert found == []
