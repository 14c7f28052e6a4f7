"""The sections that every run's page has, whatever its task: result, command, curves, data, weights, environment."""

from __future__ import annotations

import base64
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bbframe.data.data_module import DataModule
from bbframe.data.data_summary import class_histogram
from bbframe.files import dump_yaml
from bbframe.report.page.finished_run import FinishedRun
from bbframe.report.page.html_page import Section

NOT_CURVES = {"epoch", "step"}
MOST_LISTED = 200  # of a page's lists of names
MASK = "***"  # stands where a secret was


def failure_sections(run: FinishedRun) -> list[Section]:
    """Why a run failed; nothing of a run that did not."""
    return [Section("Why it failed", "text", {"text": run.error, "copy": False})] if run.error else []


def result_section(run: FinishedRun) -> Section:
    """The test metrics with their intervals, the best epoch, and what it cost."""
    figures = []
    for name, value in run.tested.items():
        ends = run.interval(name)
        detail = "test" if ends is None else f"test; 95 % interval {ends[0]:.4f} to {ends[1]:.4f}"
        figures.append({"label": name, "value": decimal(value), "detail": detail})
    note = "" if figures else "This run was not tested."
    if run.best is not None:
        epoch, value = run.best
        figures.append({"label": run.metric, "value": decimal(value), "detail": f"validation, best epoch {epoch}"})
    facts = run.metrics
    if facts.get("params"):
        figures.append({"label": "parameters", "value": f"{facts['params'] / 1e6:.2f} M", "detail": ""})
    if facts.get("gmacs") is not None:
        figures.append({"label": "GMACs", "value": f"{facts['gmacs']:.3g}", "detail": "an image"})
    seconds = facts.get("seconds") or {}
    if seconds.get("total") is not None:
        parts = ", ".join(f"{part} {duration(value)}" for part, value in seconds.items() if part != "total" and value)
        figures.append({"label": "time", "value": duration(seconds["total"]), "detail": parts})
    return Section("Result", "figures", {"figures": figures}, note)


def asked_sections(run: FinishedRun) -> list[Section]:
    """The command that repeats the run, and its whole configuration."""
    command = "python train.py " + shlex.join(run.overrides)
    note = "This command repeats the run."
    if MASK in command:
        note += f" Put the secrets back where {MASK} stands."
    sections = [Section("What was asked", "text", {"text": command.strip()}, note)]
    given = [[override.lstrip("+~").partition("=")[0], override.partition("=")[2]] for override in run.overrides]
    if given:
        sections.append(Section("", "facts", {"facts": given}))
    config = {"text": dump_yaml(run.config), "summary": "The whole configuration"}
    return [*sections, Section("", "text", config)]


def curve_section(run: FinishedRun) -> list[Section]:
    """Each value over the epochs, training and validation in one chart: the loss first, then the metric."""
    names = list(dict.fromkeys(column.partition("/")[2] for column in run.curves if column.partition("/")[0] in PARTS))
    names.sort(key=lambda name: (name != "loss", name != run.metric))
    charts = []
    for name in names:
        series: list[dict[str, Any]] = [
            {"name": word, "colour": colour, "points": [list(point) for point in run.curves[f"{part}/{name}"]]}
            for part, (word, colour) in PARTS.items()
            if f"{part}/{name}" in run.curves
        ]
        values = [value for line in series for _, value in line["points"] if np.isfinite(value)]
        wide = bool(values) and min(values) > 0 and max(values) > 50 * min(values)
        marks = [{"x": run.best[0], "text": f"best: epoch {run.best[0]}"}] if run.best else []
        axes = {"x": {"title": "epoch", "whole": True}, "y": {"title": name, "log": wide}}
        charts.append({"title": name, "kind": "line", **axes, "series": series, "marks": marks})
    if not charts:
        return []
    return [Section("Curves", "chart", {"charts": charts})]


def rate_sections(run: FinishedRun) -> list[Section]:
    """The picture of the search for a learning rate, of a run that was asked for one by `optim.lr=auto`."""
    file = run.folder / "pictures" / "learning_rate.png"
    if not file.is_file():
        return []
    source = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
    rate = (run.config.get("optim") or {}).get("lr")
    note = f"optim.lr=auto chose {rate}."
    return [Section("Learning rate", "picture", {"source": source, "text": "the loss at each learning rate"}, note)]


PARTS = {"train": ("training", "--orange"), "val": ("validation", "--blue")}


def data_sections(run: FinishedRun, data: DataModule | None) -> list[Section]:
    """How many images each part has, what was skipped, and what was assumed of others."""
    facts: list[list[str]] = [["data", str((run.config.get("data") or {}).get("name", "-"))]]
    if size := run.metrics.get("image_size"):
        facts.append(["size in the network", f"{size[0]} x {size[1]} pixels"])
    if data is not None:
        facts += [[f"{PART_NAMES[part]} images", f"{count:,}"] for part, count in data.counts.items()]
    elif (count := run.metrics.get("test_images")) is not None:
        facts.append(["tested images", f"{count:,}"])
    facts.append(["skipped", f"{run.metrics.get('skipped', 0)} unreadable images"])
    if run.metrics.get("test_part") == "val":
        facts.append(["tested on", "the validation images, because there are no test images"])
    facts += summary_facts(run.metrics.get("data_summary") or {})
    if exclude := run.metrics.get("exclude"):
        done = f"{exclude.get('left_out', 0):,} images left out, {exclude.get('relabelled', 0):,} given another class"
        facts.append(["data.exclude", f"{exclude.get('file')}: {done}"])
        facts.append(["its SHA-256", str(exclude.get("sha256"))])
    sections = [Section("Data", "facts", {"facts": facts})]
    if data is not None and data.skipped:
        sections.append(listed("Skipped images", ("image", "why"), sorted(data.skipped.items())))
    assumed = data.assumed if data is not None else {}
    rows = [[what, ", ".join(list(names)[:5]), len(names)] for what, names in assumed.items()]
    rows = rows or [[what, "", count] for what, count in (run.metrics.get("assumed") or {}).items()]
    if rows:
        sections.append(listed("What was assumed", ("what", "where", "how often"), rows))
    return sections


def summary_facts(summary: Mapping[str, Any]) -> list[list[str]]:
    """What a run's data_summary says, as pairs of a name and a value: imbalance, copies, leaks, boxes."""
    facts = []
    if summary.get("imbalance") is not None:
        ratio = f"the largest class of train is {summary['imbalance']:.2f} times the smallest"
        facts.append(["imbalance", ratio])
    for part, count in (summary.get("missing_classes") or {}).items():
        facts.append([f"classes without {PART_NAMES.get(part, part)} images", f"{count:,}"])
    if "copies" in summary:
        copies, leaks = summary["copies"], summary.get("leaks") or {}
        within = "; ".join(f"{count:,} {part} images are there again" for part, count in (copies or {}).items())
        facts.append(["exact copies", "not looked for" if copies is None else within or "none"])
        told = "; ".join(
            f"{count:,} {' images are '.join(pair.split('/'))} images too" for pair, count in leaks.items()
        )
        facts.append(["leaks between parts", "not looked for" if copies is None else told or "no exact copies"])
    if summary.get("conflicts"):
        facts.append(["images with two classes", f"{summary['conflicts']:,}"])
    for part, found in (summary.get("boxes") or {}).items():
        sizes = ", ".join(f"{found[name]:,} {name}" for name in ("small", "medium", "large") if name in found)
        tiny = f"; {found['below_stride']:,} below stride {summary.get('stride')}" if "below_stride" in found else ""
        facts.append([f"{PART_NAMES.get(part, part)} objects", f"{sizes} (COCO){tiny}"])
    return facts


PART_NAMES = {"train": "training", "val": "validation", "test": "test"}


def listed(summary: str, titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> Section:
    """A folded table, of which the first rows are shown when there are very many."""
    more = f" (the first {MOST_LISTED})" if len(rows) > MOST_LISTED else ""
    columns = [{"title": title} for title in titles]
    shown = [list(row) for row in rows[:MOST_LISTED]]
    return Section("", "table", {"columns": columns, "rows": shown, "summary": f"{summary}: {len(rows)}{more}"})


def class_counts(data: DataModule | None) -> dict[str, Counter[int]]:
    """How many images, or objects, each part has of each class: {part: {class: count}}."""
    if data is None:
        return {}
    return {
        part: Counter({label: count for label, count in enumerate(class_histogram(images, data.num_classes)) if count})
        for part, images in data.parts.items()
    }


def weights_sections(run: FinishedRun) -> list[Section]:
    """Where the weights came from, and what became of every tensor."""
    weights = run.environment.get("weights")
    start = run.config.get("ckpt_path")
    if not isinstance(weights, Mapping):
        source = f"the checkpoint {start}" if start else "fresh: the network began with random weights"
        return [Section("Weights", "facts", {"facts": [["weights", source]]})]
    facts = [[name, str(weights[name])] for name in ("source", "revision") if weights.get(name)]
    for file, digest in (weights.get("sha256") or {}).items():
        facts.append([f"SHA-256 of {file}", str(digest)])
    sections = [Section("Weights", "facts", {"facts": facts})]
    if report := weights.get("report"):
        sections.append(Section("", "text", {"text": str(report), "copy": False}))
    return sections


def environment_section(run: FinishedRun) -> Section:
    """Versions, hardware and code."""
    found = run.environment
    facts = [[word, str(found[word])] for word in ("time", "platform") if found.get(word)]
    hardware = found.get("hardware") or {}
    for name, value in hardware.items():
        shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
        facts.append([WORDS.get(name, name.replace("_", " ")), shown])
    if peak := run.metrics.get("peak_memory_bytes"):
        facts.append(["peak memory", f"{peak / 2**30:.2f} GiB"])
    facts += [[name, str(version)] for name, version in (found.get("versions") or {}).items() if version]
    if git := found.get("git"):
        facts.append(
            ["commit", f"{str(git.get('commit'))[:12]}{' and uncommitted changes' if git.get('dirty') else ''}"]
        )
    facts += [["plugin", str(plugin.get("module"))] for plugin in found.get("plugins") or ()]
    facts.append(["seed", str(run.metrics.get("seed", found.get("seed", "-")))])
    return Section("Environment", "facts", {"facts": facts})


WORDS = {"cpu": "CPU", "gpus": "GPUs", "memory_gib": "memory, GiB"}


def decimal(value: Any) -> str:
    """A metric in four decimals, a dash without one."""
    return f"{value:.4f}" if isinstance(value, (int, float)) else "-"


def duration(seconds: float) -> str:
    """A time as a person says it: 12.3 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
