"""An audit as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from bbframe.audit.data_audit import PIXELS, DataAudit
from bbframe.audit.findings import Finding
from bbframe.files import visible
from bbframe.report.tables import labelled

EXAMPLES = 3  # of a kind, in a line
WORDS = {"leak": "LEAKS", "near leak": "near leaks", "exact copy": "exact copies", "near copy": "near copies"}
BETTER = (
    "a network sees more than pixels: type a backbone with its weights, such as backbone=dinov2_small "
    "backbone.pretrained=true"
)


def audit_text(name: str, audit: DataAudit, excluded: str = "") -> str:
    """A line for each thing that was looked at, with the first examples; `excluded` is what was left out before."""
    summary = audit.summary
    counts = ", ".join(f"{count:,} {part}" for part, count in summary.images.items())
    lines = {"data": f"{name}: {counts} images, {len(summary.class_names)} classes"}
    if excluded:
        lines["excluded"] = excluded
    for word, text in summary.lines():
        if word != "copies":  # the findings say more
            lines[word] = f"{lines[word]}; {text}" if word in lines else text
    found: dict[str, list[Finding]] = {}
    for finding in audit.findings:
        found.setdefault(finding.problem, []).append(finding)
    problems = ["unreadable", "leak", "near leak", "exact copy", "near copy"]
    problems += ["two classes"] if "two classes" in found else []
    problems += ["wrong label"] if audit.confirmed is not None else []
    problems += ["outlier", *(["small object"] if summary.stride is not None else [])]
    for problem in problems:
        word = WORDS.get(problem, problem if problem in ("unreadable", "two classes") else f"{problem}s")
        if problem == "leak" and problem not in found:
            word = "leaks"
        lines[word] = _told(problem, found.get(problem, []), audit)
    lines["compared"] = f"by {audit.features}" + (f"; {BETTER}" if audit.features == PIXELS else "")
    return "\n".join([*labelled(lines), *audit.notes])


def _told(problem: str, found: Sequence[Finding], audit: DataAudit) -> str:
    agree = f" ({100 * (audit.confirmed or 0):.1f} % agree with their neighbours)" if problem == "wrong label" else ""
    if not found:
        return f"none{agree}"
    more = f" and {len(found) - EXAMPLES:,} more" if len(found) > EXAMPLES else ""
    return f"{len(found):,}{agree}: {'; '.join(map(_example, found[:EXAMPLES]))}{more}"


def _example(finding: Finding) -> str:
    name = visible(f"{finding.part}: {finding.image}")
    if finding.other:
        classes = f" ({finding.label} and {finding.suggestion})" if finding.suggestion else ""
        return f"{name} = {visible(finding.other)}{visible(classes)}"
    if finding.suggestion:
        return f"{name} is {visible(finding.label)}, looks like {visible(finding.suggestion)} ({finding.score:.2f})"
    return f"{name} ({visible(finding.detail)})" if finding.detail else name
