"""A headless Chromium that opens pages from disk, and keeps what they complain of and ask for."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)


def needs_chromium() -> None:
    """Skip the test, with the reason, where no browser can be driven."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install 'bbframe[browser]'")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")


@contextmanager
def launched() -> Iterator[object]:
    """The browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, path: Path, width: int = 1280, scheme: str = "light", quiet: bool = True) -> Iterator[object]:
    """A page of a width in pixels and a colour scheme; nothing may be asked of the network.

    A `quiet` page says nothing on the console and asks for nothing; of another, `page.complaints` lists what it said,
    and what it asks for gets no answer.
    """
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.complaints, asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request" if quiet else "requestfinished", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert page.complaints == [] or not quiet
