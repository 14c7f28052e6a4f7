"""The README stays short, and its pictures and tables are what the code says; tests/pages runs its blocks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bbframe
from bbframe.app.composition import composition, plain_data
from bbframe.app.places import HOME
from bbframe.heads.levels import choose_pyramid
from bbframe.registry import KINDS
from bbframe.run.configuration import parse_configuration
from docs.rooms import ROWS

README = (HOME / "README.md").read_text(encoding="utf-8")
PICTURES = sorted((HOME / "docs" / "pictures").glob("*.png"))


def page(name: str) -> str:
    return (HOME / "docs" / name).read_text(encoding="utf-8")


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("path", PICTURES, ids=[path.stem for path in PICTURES])
def test_a_picture_is_small_and_shown(path):
    assert path.stat().st_size < 150_000
    texts = [README, *(file.read_text(encoding="utf-8") for file in (HOME / "docs").rglob("*.md"))]
    assert any(f"pictures/{path.name}" in text for text in texts)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_beside_the_site_lead_to_files_and_headings(name):
    """`make docs` checks the links between pages."""
    for link in re.findall(r"\]\(([^)]+)\)", (HOME / name).read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        if not file.startswith("https://"):
            assert (HOME / file).is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (HOME / file).read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, link


def test_every_recipe_is_in_the_table():
    for recipe in sorted(path.stem for path in (HOME / "recipes").glob("*.yaml")):
        assert f"| `{recipe}` |" in page("fine-tune.md")


def test_every_room_is_in_the_table():
    table = "\n".join(re.findall(r"^\| (`.+?) \|", page("architecture.md"), re.MULTILINE))
    assert {room for row in ROWS for room in row} == set(re.findall(r"`(\w+)`", table))


@pytest.mark.parametrize("name", ["own-parts.md", "api/testing.md"])
def test_every_kind_of_part_is_in_the_tables(name):
    assert set(re.findall(r"^\| `(\w+)` \| ", page(name), re.MULTILINE)) == set(KINDS)


def test_every_public_name_is_on_a_page_of_the_api():
    shown = "\n".join(path.read_text(encoding="utf-8") for path in Path(HOME / "docs" / "api").glob("*.md"))
    for name in set(bbframe.__all__) - {"__version__", "BackboneType"}:
        assert re.search(rf"^::: \S+\.{name}$|\b{name}\b", shown, re.MULTILINE), name


@pytest.mark.long
def test_the_matrix_of_detection_has_every_backbone_and_its_pyramid():
    row = r"^\| `(\w+)` \| (feature|simple|by its strides) \| ✓ \| ✓ \| ✓ \| ✓ \|$"
    rows = dict(re.findall(row, page("detect.md"), re.MULTILINE))
    assert set(rows) == set(bbframe.list_backbones())
    for name in set(rows) - {"timm"}:
        with composition() as compose:
            plan = parse_configuration(plain_data(compose, ["task=detection", f"backbone={name}"]))
        assert rows[name] == {"fpn": "feature", "simple": "simple"}[choose_pyramid(None, plan.backbone.config.strides)]


def coverage() -> list[list[str]]:
    """README's first table: the names of each row, then what bbframe, transformers and timm have of them."""
    rows = re.findall(r"^\| (.*`\w+`.*|more .*) \| (.+) \| (.+) \| (.+) \|$", README, re.MULTILINE)
    assert rows
    return [[re.findall(r"`(\w+)`", names), *cells] for names, *cells in rows]


def test_the_table_of_coverage_has_every_native_backbone():
    native = [name for names, ours, *_ in coverage() if ours == "✓" for name in names]
    assert sorted(native) == sorted(set(bbframe.list_backbones()) - {"timm"})


@pytest.mark.peer
def test_the_table_of_coverage_says_what_transformers_has():
    pytest.importorskip("transformers")
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

    said = {name for names, _, theirs, _ in coverage() if theirs != "from timm" for name in names} - {"nat"}
    theirs = {name.replace("-", "_") for name in MODEL_FOR_BACKBONE_MAPPING_NAMES}
    assert said == theirs - {"timm_backbone", "tipsv2_vision_model"}


def test_the_example_on_the_page_of_exports_is_the_file_that_tests_run():
    assert (HOME / "docs" / "examples" / "onnx_classifier.py").read_text(encoding="utf-8") in page("export.md")
