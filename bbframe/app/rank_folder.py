"""The folder of a ranking: a new one, or the one that `out` names, which goes on only with the same question."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from bbframe.app.run_folder import new_folder
from bbframe.run.masking import mask_overrides

RESULT = "rank.json"


def question(options: Any, base: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """What a ranking was asked, as plain data without secrets."""
    kept = ("images", "budget", "finalists", "seeds", "image_size", "pretrained")
    asked = {key: getattr(options, key) for key in kept}
    plain = {**asked, "backbones": list(names), "overrides": mask_overrides(list(base))}
    found: dict[str, Any] = json.loads(json.dumps(plain))
    return found


def check_rank_folder(out: str | None, asked: Mapping[str, Any]) -> None:
    """Raise ValueError unless `out` is free, or holds a ranking that was asked the same."""
    if out is None:
        return
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out={folder} is a file; give a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        before = json.loads((folder / RESULT).read_text(encoding="utf-8"))["question"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"out={folder} is no folder of a ranking; give a new one") from error
    changed = [key for key in asked if before.get(key) != asked[key]]
    if changed:
        raise ValueError(
            f"out={folder} holds the ranking of another question ({', '.join(changed)} differ); give a new folder, "
            "for which the features that are known are not computed again"
        )


def make_folder(out: str | None, output_dir: str, name: str) -> Path:
    """Make the folder. Raises ValueError where that is not possible."""
    if out is None:
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        return new_folder(Path(output_dir, "rank", f"{stamp}_{name}"))
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out={out}: cannot be made ({error.strerror}); give another folder") from error
    return Path(out)
