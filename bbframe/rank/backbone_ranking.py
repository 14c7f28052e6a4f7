"""The ranking of backbones by what their features tell of the classes, with the doubt that the images leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bbframe.extraction.class_scores import correct_rows
from bbframe.extraction.nearest_neighbours import knn_scores
from bbframe.extraction.ridge import ridge_class_scores
from bbframe.extraction.standardised_features import StandardisedFeatures
from bbframe.rank.box_scores import box_scores
from bbframe.rank.discriminant import lda_scores
from bbframe.rank.gathering import CommonRows, Gathered
from bbframe.rank.logme import logme
from bbframe.rank.resampling import Resampling
from bbframe.rank.stage_choice import StageChoice, StageStep, choose_stages

SCORE = "logme"  # orders the ranking: benchmarks/rank_trust.py says why
MOST_STAGES = 4  # that are chosen of a backbone
MOST_COMPARED = 20_000  # rows whose nearest neighbours are sought, because that takes the square of their number
MEANINGS = {
    "ridge": "leave-one-out accuracy of a linear (ridge) classifier",
    "knn": "leave-one-out accuracy of the nearest neighbours",
    "lda": "leave-one-out accuracy of a shrunk linear discriminant",
    "logme": "log evidence of a linear model (LogME)",
    "box_r2": "share of the variance of box sizes that a linear model explains",
}


@dataclass
class ScoredBackbone:
    """A backbone's `stages` in the words of rank.json, its choice of stages, and why it has none, if so.

    `rows` (n,) are the contributions of the rows to its score, the LogME of its `best` stage.
    """

    facts: dict[str, Any]
    stages: list[dict[str, Any]] = field(default_factory=list)
    choice: StageChoice | None = None
    best: str = ""
    rows: np.ndarray | None = None
    failure: str = ""


def score_backbone(
    one: Gathered, rows: CommonRows, resampling: Resampling, advance: Callable[[], None] = lambda: None
) -> ScoredBackbone:
    """Score every stage of a backbone, and choose stages. A backbone whose features cannot be scored says why."""
    scored = ScoredBackbone(one.facts)
    try:
        for stage, kind in one.features.keys:
            described, added = _score_stage(one, stage, kind, rows, resampling)
            scored.stages.append(described)
            # a head reads maps: a class token tells what a stage knows, but no head is given one
            if kind == "mean" and (scored.rows is None or added.mean() > scored.rows.mean()):
                scored.best, scored.rows = stage, added
            advance()
        keys = [(stage, kind) for stage, kind in one.features.keys if kind == "mean"]
        if rows.several:
            scored.choice = choose_stages(
                keys,
                one.features.array,
                rows.labels,
                rows.num_classes,
                resampling,
                first=keys[-1][0],
                most=MOST_STAGES,
            )
        else:  # objects of one class: there is nothing to classify
            value = max(stage["scores"]["logme"] for stage in scored.stages if stage["kind"] == "mean")
            step = StageStep(scored.best, "mean", value)
            scored.choice = StageChoice([scored.best], [step], np.zeros(0), None)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError, MemoryError) as error:
        scored.failure = " ".join(str(error).split()) or type(error).__name__
    return scored


def _score_stage(
    one: Gathered, stage: str, kind: str, rows: CommonRows, resampling: Resampling
) -> tuple[dict[str, Any], np.ndarray]:
    """A stage in the words of rank.json, and the contributions of the rows to its LogME."""
    found = one.features.array(stage, kind)
    features = StandardisedFeatures(found)
    pooling = one.features.pooling
    scores: dict[str, float] = {}
    ends: dict[str, tuple[float, float]] = {}
    if rows.several:
        _score_classes(features, found, rows, resampling, scores, ends)
    scores["logme"], added = logme(features, rows.targets)
    ends["logme"] = resampling.interval(added)
    if rows.boxes is not None:
        with suppress(ValueError):  # boxes of one size leave nothing to predict
            boxes = box_scores(features, rows.boxes)
            scores["box_r2"] = boxes.r2
            scores |= {f"box_r2_{size}": value for size, value in boxes.by_size.items()}
            # R2 is 1 - errors / spread, so that the ends of the ratio's interval change places
            low, high = resampling.interval(boxes.errors, boxes.spread)
            ends["box_r2"] = (1 - high, 1 - low)
    described = {
        "name": stage,
        "index": pooling.places[stage],
        "stride": pooling.strides[stage],
        "channels": pooling.channels[stage],
        "kind": kind,
        "scores": {name: round(value, 6) for name, value in scores.items()},
        "low": {name: round(low, 6) for name, (low, _) in ends.items()},
        "high": {name: round(high, 6) for name, (_, high) in ends.items()},
    }
    return described, added


def _score_classes(
    features: StandardisedFeatures,
    found: np.ndarray,
    rows: CommonRows,
    resampling: Resampling,
    scores: dict[str, float],
    ends: dict[str, tuple[float, float]],
) -> None:
    """The accuracies of the classifiers, with their intervals."""
    y, K = rows.labels, rows.num_classes
    correct = {
        "ridge": correct_rows(ridge_class_scores(features, y, K), y),
        "lda": correct_rows(lda_scores(features, y, K), y),
    }
    scores |= {name: float(right.mean()) for name, right in correct.items()}
    ends |= {name: resampling.interval(right) for name, right in correct.items()}
    near, compared, images = features, y, resampling
    if len(y) > MOST_COMPARED:  # each with each other
        some = np.linspace(0, len(y) - 1, MOST_COMPARED).astype(np.int64)
        near, compared, images = StandardisedFeatures(found[some]), y[some], Resampling(rows.images[some])
    right = correct_rows(knn_scores(near, compared, K), compared)
    scores["knn"], ends["knn"] = float(right.mean()), images.interval(right)


def ordered(scored: Sequence[ScoredBackbone], resampling: Resampling) -> list[dict[str, Any]]:
    """The backbones in the words of rank.json, the best first; those that could not be scored are left out.

    The best stage alone gives the score. A backbone is tied with the first when the paired bootstrap interval of their
    difference holds 0. `accuracy` belongs to a linear classifier of the chosen stages, leave-one-out.
    """
    found = [one for one in scored if one.choice is not None and one.rows is not None]
    if not found:
        return []
    values = np.stack([one.rows for one in found if one.rows is not None])
    means = values.mean(axis=1)
    # equal scores: the cheaper one comes first
    order = sorted(range(len(found)), key=lambda i: (-means[i], found[i].facts["latency_seconds"]))
    chances = resampling.probability_of_being_best(values)
    first = order[0]
    rows = []
    for place in order:
        one = found[place]
        assert one.choice is not None
        low, high = resampling.interval(values[place])
        right = one.choice.correct
        accuracy = (float(right.mean()), *resampling.interval(right)) if len(right) else (None,) * 3
        row = {
            **one.facts,
            "stages": one.stages,
            "best_stage": one.best,
            "chosen": _chosen(one),
            **dict(zip(("accuracy", "accuracy_low", "accuracy_high"), map(_rounded, accuracy), strict=True)),
            "score": round(float(means[place]), 6),
            "low": round(low, 6),
            "high": round(high, 6),
            "probability_best": round(float(chances[place]), 4),
            "verdict": "first",
            "difference": None,
            "difference_low": None,
            "difference_high": None,
        }
        if place != first:
            low, high = resampling.difference(values[first], values[place])
            row |= {"difference": round(float(means[place] - means[first]), 6)}
            row |= {"difference_low": round(low, 6), "difference_high": round(high, 6)}
            row["verdict"] = "behind" if high < 0 else "tied"
        rows.append(row)
    return rows


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _chosen(one: ScoredBackbone) -> dict[str, Any]:
    assert one.choice is not None
    indices = {stage["name"]: stage["index"] for stage in one.stages}
    return {
        "stages": one.choice.stages,
        "indices": [indices[stage] for stage in one.choice.stages],
        "steps": [_step(step) for step in one.choice.steps],
        "refused": None if one.choice.refused is None else _step(one.choice.refused),
    }


def _step(step: StageStep) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in step._asdict().items()}
