"""What all charts and pictures share: colours, fonts, matplotlib's settings, and saving to a file.

Charts use matplotlib's Figure without pyplot, so they need no display and leave no state behind. The colours are Okabe
and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from PIL import Image

from bbframe.files import atomic

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Arial Unicode MS")  # the first with a letter draws it
STYLE = {
    "font.size": 10,
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e2e2e2",
    "legend.frameon": False,
    "text.usetex": False,
    "text.parse_math": False,  # a class may be called cost_$
    "savefig.dpi": 130,
}


@contextmanager
def chart_style() -> Iterator[None]:
    """Apply the style of every chart. A letter that no installed font has is drawn as a box, without a warning."""
    style: dict[Any, Any] = {**STYLE, "font.family": [name for name in FONTS if name in get_font_names()]}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def save_picture(picture: Figure | Image.Image, path: Path) -> None:
    """Write a chart or an image atomically, as PNG if the path ends in .png, else as JPEG."""
    kind = "png" if path.suffix.lower() == ".png" else "jpeg"
    with atomic(path) as part:
        if isinstance(picture, Figure):
            picture.savefig(part, format=kind)
        else:
            picture.save(part, format=kind, quality=90)
