"""Who may import whom, and what an import may cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from docs.rooms import PACKAGE, PICTURE, ROWS, imported_modules, picture, room_of

FILES = sorted(PACKAGE.rglob("*.py"))
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}
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


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_arrows_point_to_the_right(path):
    own = room_of(path)
    if own == "__init__":
        return  # it imports when an attribute is asked for
    for module in imported_modules(path):
        if module.startswith("bbframe."):
            target = module.split(".")[1]
            assert target == own or RANK[target] > RANK[own], f"{own} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_app_alone_imports_hydra_and_nothing_transformers(path):
    forbidden = {"transformers"} if path.parent.name == "app" else {"hydra", "omegaconf", "transformers"}
    assert not forbidden & {module.split(".")[0] for module in imported_modules(path)}


@pytest.mark.parametrize("path", sorted((PACKAGE / "models").glob("*.py")), ids=lambda p: p.stem)
def test_a_model_imports_one_elder_sibling_at_most(path):
    siblings = {m for m in imported_modules(path) if m.startswith("bbframe.models.")}
    assert len(siblings) <= 1
    for sibling in siblings:
        elder = PACKAGE / "models" / f"{sibling.split('.')[2]}.py"
        assert not [m for m in imported_modules(elder) if m.startswith("bbframe.models.")], "a chain"


def loaded_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.long
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


@pytest.mark.long
def test_the_picture_of_the_rooms_is_what_the_imports_say():
    """`python docs/rooms.py` draws it again."""
    assert PICTURE.read_text() == picture()
