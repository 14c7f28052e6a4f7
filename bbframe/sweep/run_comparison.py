"""What differs between runs: configuration, metrics, and on which test images each of them is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bbframe.files import visible
from bbframe.report.tables import aligned
from bbframe.sweep.job_results import flattened, is_finite, is_real, read_config, read_run_folder
from bbframe.sweep.run_index import MARKS
from bbframe.sweep.run_listing import written
from bbframe.sweep.ties import PER_IMAGE, predictions, test_difference

FACTS = ("epochs", "best_epoch", "params", "gmacs", "image_size", "test_images", "seconds.total", "peak_memory_bytes")
GROUPS = ("val.", "test.", "calibration.")  # of metrics.json: the metrics
WIDEST = 60  # characters of a value in a terminal


def compare_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """What differs between two or more runs, as plain data.

    "runs" are their names, folders and states; "configuration" maps each dotted key that differs to a value a run, and
    "metrics" each metric to values, the ends of their intervals and, for two runs that tested the same images, the
    paired bootstrap interval of the second less the first. "same_test" says whether the tests may be compared, and
    "reason" why not. "images" says which test images all miss and which one run alone, the worst first; null where the
    runs leave no prediction an image. Raises ValueError for what is no run folder, and for fewer than two.
    """
    if len(folders) < 2:
        raise ValueError("compare takes two runs or more: bbframe compare <run folder> <run folder>")
    runs = [_read(folder) for folder in folders]
    names = _names(folders)
    reason = _why_other_tests(runs, names)
    return {
        "runs": [
            {"name": name, "folder": run["path"], "status": run["status"], "error": run.get("error")}
            for name, run in zip(names, runs, strict=True)
        ],
        "configuration": _different([flattened(run["config"]) for run in runs]),
        "metrics": _metrics(runs, same_test=not reason),
        "same_test": not reason,
        "reason": reason,
        "images": None if reason else _images(runs, names),
    }


def _read(folder: Path) -> dict[str, Any]:
    if not any((folder / name).is_file() for name in MARKS):
        raise ValueError(
            f"{folder}: no run folder: it holds neither metrics.json nor error.txt; `bbframe runs` lists them"
        )
    return {**read_run_folder(folder), "config": read_config(folder)}


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or as much of the paths as tells them apart."""
    for length in range(1, max(len(folder.absolute().parts) for folder in folders) + 1):
        names = [str(Path(*folder.absolute().parts[-length:])) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"{folders[0]}: compare a run with another one, not with itself")


def _why_other_tests(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Why the tests of runs cannot be compared; empty where they can."""
    untested = [name for name, run in zip(names, runs, strict=True) if run.get("test_sha256") is None]
    if untested:
        return f"{', '.join(untested)}: has no test"
    others = [n for n, run in zip(names, runs, strict=True) if run["test_sha256"] != runs[0]["test_sha256"]]
    if others:
        return f"{', '.join(others)}: tested other images than {names[0]} (test_sha256 differs)"
    return ""


def _different(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = {key: [config.get(key) for config in configs] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def _metrics(runs: Sequence[Mapping[str, Any]], same_test: bool) -> dict[str, dict[str, Any]]:
    flat = [flattened(run) for run in runs]
    names = [name for run in flat for name in run if name.startswith(GROUPS)]
    metrics: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys([*names, *FACTS]):
        row: dict[str, Any] = {"values": [_plain(run.get(name)) for run in flat]}
        if name.startswith("test."):
            for side in ("low", "high"):
                row[side] = [_plain(run.get(name.replace("test.", f"test_{side}.", 1))) for run in flat]
        if len(runs) == 2 and all(map(is_real, row["values"])):
            row["difference"] = row["values"][1] - row["values"][0]
            row |= _paired(runs, name.removeprefix("test.")) if same_test and name.startswith("test.") else {}
        if any(value is not None for value in row["values"]):
            metrics[name] = row
    return metrics


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not is_finite(value) else value


def _paired(runs: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float | None]:
    try:
        interval = test_difference(runs[0], runs[1], metric)
    except ValueError:
        return {}
    return {"difference_low": interval.low, "difference_high": interval.high}


def _images(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any] | None:
    """How many images all runs have right, which all miss, and which each alone misses, by falling loss."""
    if not all((Path(run["path"]) / "predictions.csv").is_file() for run in runs):
        return None
    tables = [predictions(run["path"]) for run in runs]
    images = [row["image"] for row in tables[0]]
    if any([row["image"] for row in table] != images for table in tables):
        raise ValueError(f"{runs[0]['path']}: its predictions.csv names other images than the other runs' do")
    right, loss = ([[PER_IMAGE[key](row) for row in table] for table in tables] for key in ("accuracy", "loss"))
    misses = [[run for run in range(len(runs)) if not right[run][image]] for image in range(len(images))]

    def worst(wanted: list[int]) -> list[str]:
        found = [image for image, wrong in enumerate(misses) if wrong == wanted]
        found.sort(key=lambda image: -sum(loss[run][image] for run in wanted))
        return [images[image] for image in found]

    return {
        "count": len(images),
        "all_right": sum(not wrong for wrong in misses),
        "all_miss": worst([*range(len(runs))]),
        "alone": {name: worst([run]) for run, name in enumerate(names)},
    }


def comparison_text(found: Mapping[str, Any], most: int) -> str:
    """What `compare_runs` found, as text; `most` images of each kind."""
    letters = [_letter(index) for index in range(len(found["runs"]))]
    lines = []
    for letter, run in zip(letters, found["runs"], strict=True):
        state = "" if run["status"] == "ok" else f"  {run['status']}: {run['error']}"
        lines.append(visible(f"{letter}  {run['folder']}{state}"))
    lines += ["", *_configuration_text(found["configuration"], letters), ""]
    table = [["metric", *letters, *(["B - A"] if len(letters) == 2 else [])]]
    for name, row in found["metrics"].items():
        values = [_with_interval(row, index) for index in range(len(letters))]
        table.append([visible(name), *values, *([_change(row)] if len(letters) == 2 else [])])
    lines += aligned(table, left=1)
    if found["reason"]:
        return "\n".join([*lines, "", visible(f"test metrics are not comparable: {found['reason']}")])
    if any("low" in row and any(end is not None for end in row["low"]) for row in found["metrics"].values()):
        paired = ", paired for B - A" if len(letters) == 2 else ""
        lines.append(f"[low, high]: 95 % bootstrap interval over the test images{paired}")
    return "\n".join([*lines, "", *_images_text(found["images"], letters, most)])


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"R{index + 1}"


def _configuration_text(rows: Mapping[str, Sequence[Any]], letters: Sequence[str]) -> list[str]:
    if not rows:
        return ["configuration: nothing differs"]
    table = [["configuration", *letters]]
    for key, values in rows.items():
        texts = [visible(written(value)) for value in values]
        table.append([visible(key), *(text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..." for text in texts)])
    return aligned(table, left=len(table[0]))


def _with_interval(row: Mapping[str, Any], index: int) -> str:
    value = row["values"][index]
    if not is_real(value):
        return "-" if value is None else visible(written(value))
    low, high = (row.get(side, {index: None})[index] for side in ("low", "high"))
    return _figure(value) if low is None or high is None else f"{_figure(value)} [{_figure(low)}, {_figure(high)}]"


def _change(row: Mapping[str, Any]) -> str:
    if row.get("difference") is None:
        return ""
    low, high = row.get("difference_low"), row.get("difference_high")
    interval = "" if low is None or high is None else f" [{low:+.4f}, {high:+.4f}]"
    return f"{'+' * (row['difference'] >= 0)}{_figure(row['difference'])}{interval}"


def _figure(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def _images_text(found: Mapping[str, Any] | None, letters: Sequence[str], most: int) -> list[str]:
    if found is None:
        return ["images: not every run has a predictions.csv, so they are not compared image by image"]
    lines = [f"images: {found['count']}, all right {found['all_right']}"]
    groups = {"all miss": found["all_miss"]}
    groups |= {f"{letter} alone misses": names for letter, names in zip(letters, found["alone"].values(), strict=True)}
    for title, names in groups.items():
        lines.append(f"{title} {len(names)}" + (", the worst first:" if names and most else ""))
        lines += [f"  {visible(name)}" for name in names[:most]]
        if most and len(names) > most:
            lines.append(f"  ... and {len(names) - most} more (--images {len(names)} or --json)")
    return lines
