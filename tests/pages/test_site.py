"""The site is built without a warning, its links lead somewhere, and it asks no other host for anything."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from docs.rooms import ROOT

pytestmark = pytest.mark.docs
_ASKED = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]+)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.long
def test_every_page_is_built(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {path for path in pages if not (site / path).is_file()} == set()


def test_the_site_asks_no_other_host(site):
    """Links that are followed by a click may lead elsewhere; what a page loads may not."""
    asked = {
        address
        for page in site.rglob("*.html")
        for address in _ASKED.findall(page.read_text(encoding="utf-8"))
        if 'rel="canonical"' not in address
    }
    styles = {
        address
        for file in site.rglob("*.css")
        for address in re.findall(r"url\(['\"]?((?:https?:)?//[^)]+)\)", file.read_text(encoding="utf-8"))
    }
    assert asked | styles == set()


def test_code_of_the_package_is_not_published(site):
    assert list(site.rglob("*.py")) == []


def test_the_api_has_signatures_and_docstrings(site):
    page = (site / "api" / "backbones.html").read_text(encoding="utf-8")
    assert "from_pretrained" in page
    assert "Makes any backbone from its config or from a checkpoint" in page
