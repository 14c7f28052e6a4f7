"""The rooms of the package and the arrows between them, read off the imports; run, it draws docs/rooms.svg."""

from __future__ import annotations

import ast
from collections import Counter
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bbframe"
PICTURE = ROOT / "docs" / "rooms.svg"

# From left to right: a room imports from rooms further right, never back. Rooms of one row do not import each other.
ROWS = [
    ("testing",),
    ("app",),
    ("rank", "audit", "sweep", "export"),
    ("predict",),
    ("extraction",),
    ("run",),
    ("report",),
    ("tasks", "data"),
    ("heads",),
    ("factory",),
    ("auto",),
    ("fast",),
    ("models", "timm_backbone"),
    ("backbone",),
    ("hub",),
    ("backbone_mixin", "keymap"),
    ("layers", "preprocessing"),
    ("imaging",),
    ("config",),
    ("selection",),
    ("ranges", "registry", "files"),
    ("schema",),
]


def imported_modules(path: Path) -> list[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    package = ["bbframe", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found.append(".".join([*base, *([node.module] if node.module else [])]))
    return found


def room_of(path: Path) -> str:
    """The room that a file of the package lies in: its folder, or its own name at the top."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def arrows() -> Counter[tuple[str, str]]:
    """How many imports lead from each room to each other one."""
    found: Counter[tuple[str, str]] = Counter()
    for path in PACKAGE.rglob("*.py"):
        for module in imported_modules(path):
            parts = module.split(".")
            if parts[0] == "bbframe" and len(parts) > 1 and parts[1] != room_of(path) != "__init__":
                found[room_of(path), parts[1]] += 1
    return found


def direct(found: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows that no chain of other arrows stands for."""
    after: dict[str, set[str]] = {}
    for source, target in found:
        after.setdefault(source, set()).add(target)
    reach: dict[str, set[str]] = {}
    for room in [room for row in reversed(ROWS) for room in row]:  # what lies right of a room is known before it
        targets = after.get(room, set())
        reach[room] = targets.union(*(reach.get(target, set()) for target in targets))
    implied = {(room, far) for room, targets in after.items() for near in targets for far in reach.get(near, ())}
    return sorted(set(found) - implied)


def purpose(room: str) -> str:
    """The first sentence of a room's docstring."""
    folder = PACKAGE / room
    file = folder / "__init__.py" if folder.is_dir() else PACKAGE / f"{room}.py"
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].partition(": ")[0].rstrip(".")


def picture() -> str:
    """The house as SVG: a row of rooms above the rows that it may import from."""
    rows = [[room for room in row if (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()] for row in ROWS]
    rows = [row for row in rows if row]
    wide, high, gap = 250, 44, 26
    width = max(900, max(map(len, rows)) * (wide + 30) + 30)
    centre = {
        room: (width / 2 + (place - (len(row) - 1) / 2) * (wide + 30), 20 + number * (high + gap) + high / 2)
        for number, row in enumerate(rows)
        for place, room in enumerate(row)
    }
    lines = []
    for source, target in direct(arrows()):
        (x1, y1), (x2, y2) = centre[source], centre[target]
        y1, y2 = y1 + high / 2, y2 - high / 2 - 3
        bend = (y2 - y1) / 2
        side = 0 if y2 - y1 < 2 * gap else (190 if x1 >= x2 else -190)  # a long arrow passes beside the rooms between
        curve = f"M{x1:g} {y1:g} C{x1 + side:g} {y1 + bend:g} {x2 + side:g} {y2 - bend:g} {x2:g} {y2:g}"
        lines.append(f'<path d="{curve}" fill="none" stroke="#8a94ad" marker-end="url(#head)"/>')
    boxes = []
    for room, (x, y) in centre.items():
        text = purpose(room)
        shown = text if len(text) <= 46 else text[:45].rpartition(" ")[0] + " …"
        boxes.append(
            f"<g><title>{escape(text)}</title>"
            f'<rect x="{x - wide / 2:g}" y="{y - high / 2:g}" width="{wide}" height="{high}" rx="6" fill="#f4f6fb" '
            f'stroke="#4a5f8a"/><text x="{x:g}" y="{y - 4:g}" text-anchor="middle" font-weight="bold">{room}</text>'
            f'<text x="{x:g}" y="{y + 13:g}" text-anchor="middle" font-size="10" fill="#556">{escape(shown)}</text>'
            "</g>"
        )
    height = 20 + len(rows) * (high + gap)
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#8a94ad"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="white"/>{head}{"".join(lines)}{"".join(boxes)}</svg>\n'
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE)
