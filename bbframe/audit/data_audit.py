"""The audit of a data set: every image read once, then copies, leaks, wrong labels, outliers, objects too small."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bbframe.audit.duplicates import equal_groups, near_by_features, near_by_hash
from bbframe.audit.findings import PROBLEMS, AuditedImages, Finding, copy_findings, near_findings, spare_the_last
from bbframe.audit.image_traits import SMALL, ImageTraits, read_traits
from bbframe.audit.label_disagreement import label_doubts
from bbframe.audit.network_features import image_features
from bbframe.audit.outliers import UNUSUAL, class_outliers
from bbframe.audit.size_histograms import size_histograms
from bbframe.backbone import Backbone
from bbframe.data.boxes.box_options import DetectionDataOptions
from bbframe.data.boxes.box_sizes import below_stride, box_sides, scales
from bbframe.data.boxes.objects import Objects
from bbframe.data.data_module import DataModule
from bbframe.data.data_summary import DataSummary, summarise
from bbframe.data.exclusion import image_name

PIXELS = f"{SMALL} x {SMALL} pixels"
DOUBTFUL = 0.5  # from this score on another class outweighs an image's own
MOST_DOUBTS, LEAST_DOUBTS = 0.1, 100  # of the images, the share whose labels are listed at most, unless they are few
WEAK = 0.7  # with a smaller share of labels confirmed, the features tell the classes badly apart


@dataclass
class DataAudit:
    """What was found. `features` says what images were compared by; `confirmed` is the share of labels that the
    nearest neighbours agree with, None where labels were not looked at; `notes` are sentences about what was not done.
    """

    summary: DataSummary
    traits: ImageTraits
    images: AuditedImages
    findings: list[Finding]
    features: str
    confirmed: float | None = None
    notes: list[str] = field(default_factory=list)
    histograms: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each problem."""
        found = Counter(finding.problem for finding in self.findings)
        return {problem: found[problem] for problem in PROBLEMS if found[problem]}

    def plain(self) -> dict[str, Any]:
        """Plain data, for audit.json and the page."""
        return {
            "status": "ok",
            "class_names": self.summary.class_names,
            "summary": self.summary.counts(),
            "per_class": self.summary.per_class,
            "noun": self.summary.noun,
            "features": self.features,
            "confirmed_labels": None if self.confirmed is None else round(self.confirmed, 6),
            "problems": self.counts,
            "histograms": self.histograms,
            "findings": [finding.plain() for finding in self.findings],
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
        }


def audit_data(
    data: DataModule,
    net: Backbone | None = None,
    *,
    features: str = "",
    stride: int | None = None,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> DataAudit:
    """Audit all parts of a data set.

    Images are compared by what `net` makes of them, which `features` names, else by their pixels. `stride` belongs to
    the finest map: objects that are smaller are told. `tell` hears how many images are read.
    """
    started = time.monotonic()
    traits = read_traits(data.parts, tell)
    images = _who(data, traits)
    groups = equal_groups(traits.digests)
    summary = summarise(data, stride, [[traits.places[number] for number in group] for group in groups])
    audit = DataAudit(summary, traits, images, [], features if net is not None else PIXELS)
    for number, why in enumerate(traits.errors):
        if why:
            audit.findings.append(images.finding(number, "unreadable", 1.0, action="exclude", detail=why))
    copies, kept = copy_findings(images, groups)
    audit.findings += copies
    unique = np.array([number for number in traits.readable.tolist() if number not in kept], np.int64)
    rows = _features(data, net, traits, unique)
    audit.findings += _near(images, traits, unique, rows if net is not None else None)
    if isinstance(data.options, DetectionDataOptions):
        labels = np.zeros(len(unique), np.int64)
        audit.notes.append(
            "The classes of objects were not checked, because that needs a network's features of boxes."
        )
    else:
        labels = np.array([_label(data, traits.places[number]) for number in unique.tolist()], np.int64)
        _add_doubts(audit, unique, rows, labels)
    _add_outliers(audit, unique, rows, labels)
    if stride is not None and isinstance(data.options, DetectionDataOptions):
        audit.findings += small_object_findings(data, images, stride)
    audit.histograms = size_histograms(traits.sizes[traits.readable], data)
    order = {problem: place for place, problem in enumerate(PROBLEMS)}
    audit.findings.sort(key=lambda finding: (order[finding.problem], -finding.score, finding.number))
    audit.findings = spare_the_last(audit.findings, images.parts, images.labels)
    audit.seconds = time.monotonic() - started
    return audit


def _who(data: DataModule, traits: ImageTraits) -> AuditedImages:
    detection = data.options.task == "detection"
    return AuditedImages(
        [part for part, _ in traits.places],
        [image_name(data.parts[part], index) for part, index in traits.places],
        ["" if detection else data.class_names[_label(data, place)] for place in traits.places],
    )


def _label(data: DataModule, place: tuple[str, int]) -> int:
    return int(np.ravel(data.parts[place[0]].labels[place[1]])[0])


def _features(data: DataModule, net: Backbone | None, traits: ImageTraits, numbers: np.ndarray) -> np.ndarray:
    """The features of some images, in their order: (n, C) float32."""
    if net is None:
        return traits.pixel_features[numbers]
    found = []
    for part in data.parts:
        indices = [traits.places[number][1] for number in numbers.tolist() if traits.places[number][0] == part]
        if indices:
            found.append(image_features(net, data, part, indices))
    return np.concatenate(found) if found else np.zeros((0, 1), np.float32)


def _near(
    images: AuditedImages, traits: ImageTraits, numbers: np.ndarray, features: np.ndarray | None
) -> list[Finding]:
    """Near copies by the perceptual hash and, of a network's features, by these; a pair is told once."""
    pairs = near_by_hash(traits.hashes[numbers], traits.small[numbers])
    seen = {(pair.one, pair.other) for pair in pairs}
    more = [] if features is None else [p for p in near_by_features(features) if (p.one, p.other) not in seen]
    found: list[Finding] = []
    for pairs_found, how in ((pairs, "by perceptual hash"), (more, "by features")):
        renumbered = [
            pair._replace(one=int(numbers[pair.one]), other=int(numbers[pair.other])) for pair in pairs_found
        ]
        found += near_findings(images, renumbered, how)
    return found


def _add_doubts(audit: DataAudit, numbers: np.ndarray, features: np.ndarray, labels: np.ndarray) -> None:
    """Add the likely wrong labels: the most doubtful ones, as long as another class outweighs their own."""
    if len(numbers) < 2:
        return
    names = audit.summary.class_names
    doubts = label_doubts(features, labels, len(names))
    several = np.bincount(labels, minlength=len(names))[labels] > 1  # of one alone nobody can tell
    doubtful = [p for p in doubts.ranking().tolist() if doubts.scores[p] > DOUBTFUL and several[p]]
    audit.confirmed = 1 - len(doubtful) / len(numbers)
    most = max(LEAST_DOUBTS, round(MOST_DOUBTS * len(numbers)))
    if audit.confirmed < WEAK:
        audit.notes.append(
            f"Only {100 * audit.confirmed:.0f} % of the labels agree with their neighbours: these features tell the "
            "classes badly apart, so that a doubt means little."
        )
    if len(doubtful) > most:
        audit.notes.append(f"{len(doubtful):,} labels are doubtful; the first {most:,} are listed.")
    for place in doubtful[:most]:
        number, suggestion = int(numbers[place]), names[int(doubts.suggestions[place])]
        score = float(doubts.scores[place])
        audit.findings.append(audit.images.finding(number, "wrong label", score, suggestion=suggestion))


def _add_outliers(audit: DataAudit, numbers: np.ndarray, features: np.ndarray, labels: np.ndarray) -> None:
    found = class_outliers(features, labels)
    for place in np.flatnonzero(found.unusual > UNUSUAL).tolist():
        detail = f"distance {found.distances[place]:.3f}, unusual {found.unusual[place]:.1f}"
        score = float(found.scores[place])
        audit.findings.append(audit.images.finding(int(numbers[place]), "outlier", score, detail=detail))


def small_object_findings(data: DataModule, images: AuditedImages, stride: int) -> list[Finding]:
    """Images with objects that are smaller than the finest stride once resized; the smaller, the higher the score."""
    assert isinstance(data.options, DetectionDataOptions)
    found = []
    start = 0
    for objects in data.parts.values():
        if isinstance(objects, Objects):
            owners = np.repeat(np.arange(len(objects.sizes)), np.diff(objects.offsets))[~objects.crowd]
            classes = objects.classes[~objects.crowd]
            sides = (box_sides(objects) * scales(data.options, objects)[:, None]).min(1, initial=np.inf)
            tiny = below_stride(data.options, objects, stride)
            for index in np.unique(owners[tiny]).tolist():
                first, last = np.searchsorted(owners, [index, index + 1]).tolist()
                least = first + int(sides[first:last].argmin())
                count = f"{int(tiny[first:last].sum())} of {last - first} objects"
                detail = f"{count}; the smallest is {sides[least]:.1f} pixels, the stride {stride}"
                label, score = data.class_names[int(classes[least])], 1 - float(sides[least]) / stride
                found.append(images.finding(start + index, "small object", score, label=label, detail=detail))
        start += len(objects.labels)
    return found
