"""What `compare` leaves: the ratios, the targets that they are held against, a table in Markdown and a picture.

A result is plain data: {"machine": ..., "rows": {case: {"title", "checks", "errors", "measures": {name: {"values":
{library: number}, "errors": {library: reason}}}}}}. A ratio is the better peer's value over ours: above 1 is ahead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.cases import GROUPS, LIBRARIES, Measure

CONVOLUTIONAL = ("ResNet-50", "BiT-50", "FocalNet-T (srf)")
BARS = {"forward8": "forward", "train8": "training step", "bf16-forward8": "forward, bf16"}
GPU_BARS = {
    "bf16-forward64": "forward",
    "bf16-train64": "training step",
    "compile-bf16-forward64": "forward, compiled",
    "compile-bf16-train64": "training step, compiled",
}
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # Okabe and Ito's: colour-blind readers tell them apart
TITLES = {
    "forward": "Forward pass",
    "train": "Training step (forward, backward; no optimizer)",
    "early": "Forward pass, the maps of stages 1 and 2 alone",
    "memory": "Peak memory of a training step",
    "start": "Import and first construction in a fresh process",
}


def peer_values(row: Mapping[str, Any], name: str) -> dict[str, float]:
    """What counts of the peers: values of those whose maps are ours."""
    measure = Measure(name)
    values = row["measures"].get(name, {}).get("values", {})
    if measure.kind == "start":
        return {library: value for library, value in values.items() if library == "transformers"}
    precision = "bf16" if measure.bf16 else "float32"
    checks = row.get("checks", {})
    return {
        library: value
        for library, value in values.items()
        if library != "bbframe"
        and (library not in LIBRARIES or checks.get(library, {}).get("counts", {}).get(precision))
    }


def ratio(row: Mapping[str, Any], name: str, library: str | None = None) -> float | None:
    """The better peer's value over ours, or one library's; None without either."""
    ours = row["measures"].get(name, {}).get("values", {}).get("bbframe")
    peers = [value for peer, value in peer_values(row, name).items() if library in (None, peer)]
    return min(peers) / ours if ours and peers else None


def ratios(rows: Mapping[str, Any], name: str, library: str | None = None) -> dict[str, float]:
    """The ratio of each architecture that has a peer, by title."""
    found = {row["title"]: ratio(row, name, library) for row in rows.values() if not stands_in(row)}
    return {title: value for title, value in found.items() if value is not None}


def stands_in(row: Mapping[str, Any]) -> bool:
    """Whether a row has another architecture of bbframe in place of a peer."""
    return any(library not in LIBRARIES for m in row["measures"].values() for library in m.get("values", {}))


def targets(rows: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What was aimed at, the aim, what was reached with its worst case, and whether that is enough."""
    lines: list[tuple[str, str, str, bool]] = []

    def mean(what: str, name: str, aim: float, library: str | None = None) -> None:
        found = ratios(rows, name, library)
        if found:
            reached = geometric_mean(found.values())
            lines.append((f"{what}, geometric mean of {len(found)}", f"{aim}", f"{reached:.2f}", reached >= aim))

    def least(what: str, name: str, aim: float, of: Mapping[str, float], digits: int = 2) -> None:
        if of:
            worst = min(of, key=lambda title: of[title])
            lines.append((what, f"{aim}", f"{of[worst]:.{digits}f} ({worst})", of[worst] >= aim))

    forward = ratios(rows, "forward8")
    mean("forward, float32, batch 8", "forward8", 2.0)
    attention = {title: value for title, value in forward.items() if title not in CONVOLUTIONAL}
    least("the same, each with attention or ConvNeXt", "forward8", 1.6, attention)
    least(
        "the same, each of ResNet, BiT, FocalNet",
        "forward8",
        1.2,
        {t: forward[t] for t in CONVOLUTIONAL if t in forward},
    )
    mean("forward, float32, batch 1", "forward1", 1.5)
    mean("training step, float32, batch 8", "train8", 1.7)
    least("two early maps, each, against transformers", "early8", 3, ratios(rows, "early8", "transformers"))
    mean("forward, bf16 autocast, batch 8", "bf16-forward8", 1.3)
    memory = {title: 1 / value for title, value in ratios(rows, "memory8").items()}
    if memory:
        worst = max(memory, key=lambda title: memory[title])
        held = memory[worst]
        lines.append(
            ("peak memory of a training step, ours / the peer's, worst", "≤ 1.0", f"{held:.2f} ({worst})", held <= 1)
        )
    mean("import and build, against transformers", "start", 3)
    least(
        "compiled forward, each, against the peer compiled", "compile-forward8", 1.0, ratios(rows, "compile-forward8")
    )
    for row in rows.values():
        found = ratio(row, "forward8") if stands_in(row) else None
        if found is not None:
            lines.append(
                (f"{row['title']}, forward, time over Swin-T's", "≤ 1.6", f"{1 / found:.2f}", 1 / found <= 1.6)
            )
    mean("GPU: forward, bf16", "bf16-forward64", 1.3)
    mean("GPU: training step, bf16", "bf16-train64", 1.3)
    for name in ("compile-bf16-forward64", "compile-bf16-train64"):
        mean(f"GPU: {name}", name, 1.05)
    for name in GPU_BARS:
        least(f"GPU: {name}, each", name, 1.0, ratios(rows, name))
    return lines


def one_line(title: str, name: str, row: Mapping[str, Any]) -> str:
    """A result as the terminal shows it."""
    found = row["measures"][name]
    unit = Measure(name).unit
    values = "  ".join(f"{library} {number(value)}" for library, value in found["values"].items())
    reached = ratio(row, name)
    errors = "".join(f"  {library}: {why}" for library, why in found.get("errors", {}).items())
    return f"{title:18} {name:22} {values} {unit}  {'-' if reached is None else f'{reached:.2f}x'}{errors}"


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def markdown(result: Mapping[str, Any]) -> str:
    """The whole report."""
    machine, rows = result["machine"], result["rows"]
    lines = ["# bbframe beside transformers and timm", ""]
    lines += [f"- {key}: {value}" for key, value in machine.items()]
    lines += [
        "",
        "Same weights, same maps; timed in turn, medians. A ratio is the faster peer's time over ours (memory: the "
        "smaller peer's over ours), so above 1 we are ahead. A number in brackets does not count: its maps differ.",
    ]
    reached = targets(rows)
    if reached:
        lines += ["", "## Targets", "", "| what | target | reached | |", "|---|---|---|---|"]
        lines += [f"| {what} | {aim} | {got} | {'yes' if enough else 'no'} |" for what, aim, got, enough in reached]
    for name in dict.fromkeys(name for device in GROUPS.values() for names in device.values() for name in names):
        lines += _table(name, rows)
    lines += [
        "",
        "## Maps",
        "",
        "| architecture | peer | distance, float32 | bf16 from float32: ours, theirs | attention |",
    ]
    lines.append("|---|---|---|---|---|")
    for row in rows.values():
        for library, check in row.get("checks", {}).items():
            own, theirs = check["bf16"]
            attention = check["attention"] or "fused where it has it"
            cells = [row["title"], library, f"{check['float32']:.1e}", f"{own:.1e}, {theirs:.1e}", attention]
            lines.append(f"| {' | '.join(cells)} |")
    notes = [f"- {row['title']}: {row['note']}" for row in rows.values() if row.get("note")]
    failures = [
        f"- {row['title']}, {who}: {why}" for row in rows.values() for who, why in row.get("errors", {}).items()
    ]
    lines += ["", *notes] if notes else []
    lines += ["", "## Failures", "", *failures] if failures else []
    return "\n".join(lines) + "\n"


def _table(name: str, rows: Mapping[str, Any]) -> list[str]:
    shown = [row for row in rows.values() if name in row["measures"]]
    if not shown:
        return []
    measure = Measure(name)
    how = [f"batch {measure.batch}"] if measure.kind != "start" else []
    how += [f"{'bf16 autocast' if measure.bf16 else 'float32'}"] if measure.kind != "start" else []
    how += ["compiled"] if measure.compiled else []
    lines = ["", f"## {', '.join([TITLES[measure.kind], *how])} ({measure.unit})", ""]
    lines += ["| architecture | bbframe | transformers | timm | ratio |", "|---|---|---|---|---|"]
    for row in shown:
        found, counted = row["measures"][name], peer_values(row, name)
        cells = []
        for library in LIBRARIES:
            value = found["values"].get(library)
            shown_value = "-" if value is None else number(value)
            counts = library == "bbframe" or library in counted or measure.kind == "start"
            cells.append(shown_value if counts or value is None else f"({shown_value})")
            if library in found.get("errors", {}):
                cells[-1] = found["errors"][library].partition(":")[0]
        others = [
            f"{library}: {number(value)}" for library, value in found["values"].items() if library not in LIBRARIES
        ]
        reached = ratio(row, name)
        cells.append(", ".join(["-" if reached is None else f"{reached:.2f}", *others]))
        lines.append(f"| {' | '.join([row['title'], *cells])} |")
    return lines


def picture(result: Mapping[str, Any], out: Path) -> None:
    """Bars of the ratio to the better peer, an architecture a group; nothing when there is none to draw."""
    rows = result["rows"]
    bars = GPU_BARS if any(ratios(rows, name) for name in GPU_BARS) else BARS
    series = {name: found for name in bars if (found := ratios(rows, name))}
    titles = [row["title"] for row in rows.values() if any(row["title"] in found for found in series.values())]
    if not titles:
        return
    thick = 0.8 / len(series)
    with matplotlib.rc_context({"axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 130}):
        figure = Figure(figsize=(8, 1.6 + 0.62 * len(titles)), layout="constrained")
        axes = figure.subplots()
        for i, (name, found) in enumerate(series.items()):
            places = [titles.index(title) + (i - (len(series) - 1) / 2) * thick for title in found]
            drawn = axes.barh(places, list(found.values()), thick * 0.92, color=COLOURS[i], label=bars[name])
            labels = axes.bar_label(drawn, [f"{value:.2f}" for value in found.values()], padding=2, fontsize=8)
            for label in labels:
                label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        axes.axvline(1, color="#666666", linewidth=1, zorder=0.5)
        axes.set_yticks(range(len(titles)), titles)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("times as fast as the faster of transformers and timm")
        axes.margins(x=0.08, y=0.02)
        figure.legend(loc="outside upper right", ncols=len(series), frameon=False)
        machine = result["machine"]
        figure.suptitle(
            str(machine.get("gpu") or f"{machine.get('cpu')}, {machine.get('threads')} threads"), x=0.02, ha="left"
        )
        figure.savefig(out)


def write(result: Mapping[str, Any], folder: Path) -> None:
    """table.json, table.md and ratios.png; an interruption leaves those of before."""
    for name, text in (("table.json", json.dumps(result, indent=1) + "\n"), ("table.md", markdown(result))):
        temporary = folder / f".{name}"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, folder / name)
    picture(result, folder / "ratios.png")
