"""The pictures of the README and the pages, from real runs; run, it trains what they show and draws them.

    python docs/pictures.py                              # everything: about half an hour on two cores
    python docs/pictures.py mistakes=outputs/classification/<run>      # one of them, from a run that is there

`ratios.png` comes from `make bench`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "pictures"
LARGEST = 150_000  # bytes of a picture
WIDTH = 1100  # pixels
# a picture: the file in a run's, a sweep's or a ranking's folder, the share of its height that is shown, from the top,
# and the command that makes such a folder
PICTURES = {
    "mistakes": ("pictures/worst_mistakes.png", 1.0, ["train"]),
    "detections": ("pictures/boxes.png", 0.283, ["train", "task=detection"]),
    "leaderboard": ("leaderboard.png", 1.0, ["train", "recipes=digits_sweep"]),
    "score_by_stage": (
        "score_by_stage.png",
        1.0,
        [
            "rank",
            "data=digits",
            "backbones=resnet18,convnextv2_atto,swin_tiny,dinov2_small",
            "pretrained=false",
            "image_size=64",
            "images=300",
            "finalists=0",
        ],
    ),
}


def new_folder(arguments: list[str]) -> Path:
    """Run `bbframe` with these arguments; the folder of the results, the newest below outputs/."""
    before = set(Path("outputs").glob("*/*"))
    command = [sys.executable, "-c", "from bbframe.app.cli import main; raise SystemExit(main())", *arguments]
    subprocess.run(command, check=True)
    return max(set(Path("outputs").glob("*/*")) - before, key=lambda path: path.stat().st_mtime)


def shrink(source: Path, target: Path, share: float) -> None:
    """Write the upper part of a picture, in as many colours as LARGEST bytes allow; ValueError if none do."""
    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture = picture.crop((0, 0, picture.width, round(picture.height * share)))
    for colours in (256, 64, 16):
        picture.quantize(colours, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size <= LARGEST:
            return
    raise ValueError(f"{target}: {target.stat().st_size} bytes, at most {LARGEST} are wanted")


def main() -> None:
    """Make the pictures that are asked for, or all of them."""
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if unknown := set(given) - set(PICTURES):
        raise SystemExit(f"error: no picture {sorted(unknown)}; choose from: {', '.join(PICTURES)}")
    for name in given or PICTURES:
        file, share, arguments = PICTURES[name]
        folder = Path(given[name]) if name in given else new_folder(arguments)
        shrink(folder / file, FOLDER / f"{name}.png", share)


if __name__ == "__main__":
    main()
