"""The end of one run as a few lines of text."""

from __future__ import annotations

from typing import Any

from bbframe.report.tables import labelled, number


def run_table(summary: dict[str, Any]) -> str:
    """The end of one run, from its metrics.json and "folder", a line each; a train or test not done is left out."""
    best, seconds = summary.get("best"), summary["seconds"]
    lines = {
        "backbone": summary["backbone"],
        "source": summary["source"],
        "parameters": f"{summary['params'] / 1e6:.2f} M",
        "GMACs": number(summary["gmacs"], ".3g"),
        "epochs": summary["epochs"],
    }
    if best:
        lines[best["metric"]] = f"{best['value']:.4f} (best, epoch {best['epoch']})"
    test = summary.get("test") or {}
    metric = best["metric"].replace("val/", "test/") if best else next(iter(test), "")
    if metric in test:
        lines[metric] = f"{test[metric]:.4f}"
    parts = ", ".join(f"{part} {value:.1f}" for part, value in seconds.items() if part != "total" and value)
    lines["seconds"] = f"{seconds['total']:.1f}" + (f" ({parts})" if parts else "")
    lines["folder"] = summary["folder"]
    return "\n".join(labelled(lines))
