"""Who may import whom, and what an import may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bbframe

PACKAGE = Path(bbframe.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# rooms from left to right: a file imports from its own room and from rooms to its right
ROOMS = [
    ("testing",),
    ("app",),
    ("rank", "sweep", "predict", "export"),
    ("run",),
    ("report",),
    ("tasks", "data"),
    ("heads",),
    ("models", "timm_backbone"),
    ("factory",),
    ("auto",),
    ("hub",),
    ("backbone", "keymap"),
    ("layers", "config", "preprocessing"),
    ("selection",),
    ("files",),
    ("registry",),
    ("schema",),
]
RANK = {name: rank for rank, room in enumerate(ROOMS) for name in room}
HEAVY = {
    "lightning",
    "hydra",
    "omegaconf",
    "timm",
    "torchvision",
    "transformers",
    "matplotlib",
    "sklearn",
    "torchmetrics",
}


def imports(path: Path) -> list[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    package = ["bbframe", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found.append(".".join([*base, *([node.module] if node.module else [])]))
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_arrows_point_to_the_right(path):
    own = room("bbframe." + path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."))
    if own == "__init__":
        return  # it imports when an attribute is asked for
    for module in imports(path):
        if module.startswith("bbframe."):
            target = room(module)
            if own == "auto" and module == "bbframe.models":
                continue  # the registry knows where its files lie
            assert target == own or RANK[target] > RANK[own], f"{own} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_the_package_imports_neither_hydra_nor_transformers(path):
    assert not {"hydra", "omegaconf", "transformers"} & {module.split(".")[0] for module in imports(path)}


@pytest.mark.parametrize("path", sorted((PACKAGE / "models").glob("*.py")), ids=lambda p: p.stem)
def test_a_model_imports_one_elder_sibling_at_most(path):
    siblings = {m for m in imports(path) if m.startswith("bbframe.models.")}
    assert len(siblings) <= 1
    for sibling in siblings:
        elder = PACKAGE / "models" / f"{sibling.split('.')[2]}.py"
        assert not [m for m in imports(elder) if m.startswith("bbframe.models.")], "a chain"


def loaded_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_package_loads_little_more_than_torch():
    """An import costs what it loads: against `import torch`, a handful of modules."""
    everything = "import bbframe\nbbframe.AutoBackbone, bbframe.ResNetBackbone, bbframe.Dinov2Config"
    extra = loaded_by(everything) - loaded_by("import torch")
    assert not extra & HEAVY
    assert len(extra) <= 12, sorted(extra)


@pytest.mark.parametrize("module", ["data", "heads", "tasks", "run.configuration", "run.lightning_parts"])
def test_options_are_checked_without_anything_heavy(module):
    assert not loaded_by(f"import bbframe.{module}") & HEAVY


def test_no_file_chooses_a_package_registry():
    """Where packages come from is the user's own setting."""
    words = ["index" + "-url", "extra-" + "index"]
    for path in [
        *FILES,
        *PACKAGE.parent.glob("*.toml"),
        *PACKAGE.parent.glob("*.md"),
        *PACKAGE.parent.glob("Makefile"),
    ]:
        assert not [word for word in words if word in path.read_text()], path
