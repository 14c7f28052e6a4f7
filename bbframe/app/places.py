"""Where conf/ and recipes/ lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
HOME = next((place for place in (PACKAGE, PACKAGE.parent) if (place / "conf").is_dir()), PACKAGE)
CONF, RECIPES = HOME / "conf", HOME / "recipes"


def file_choices(extra: Path | None = None) -> dict[str, list[str]]:
    """The config groups and what each offers, read off the file names alone."""
    places = [CONF, *([extra] if extra else [])]
    folders = [*(p for place in places for p in sorted(place.iterdir()) if p.is_dir()), RECIPES]
    names: dict[str, set[str]] = {}
    for folder in folders:
        names.setdefault(folder.name, set()).update(file.stem for file in folder.glob("*.yaml"))
    return {group: sorted(found) for group, found in names.items()}
