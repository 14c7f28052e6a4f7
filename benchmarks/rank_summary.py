"""The figures of `rank_trust` over its splits: agreement, regret, finalists, choice of stages, and sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bbframe.rank.rank_agreement import finalists, first_choice_regret, weighted_kendall, winner_among
from bbframe.sweep.statistics import t_interval

Figures = dict[str, list[float]]  # by split
COUNTS = (2, 4)
MEANS = {
    "tau": "weighted Kendall tau",
    "regret": "regret of the first choice, points",
    **{f"among_{n}": f"winner among {n}, %" for n in COUNTS},
    **{f"regret_{n}": f"regret of the best of {n}, points" for n in COUNTS},
    "size": "tau with the number of parameters",
}


def scores_of(found: Mapping[str, Any]) -> dict[str, list[float]]:
    """Every score of the networks of a split, in their order: of the last stage, of the best stage, and combined."""
    nets = list(found.values())
    scores: dict[str, list[float]] = {}
    for name in nets[0]["stages"][0]:
        scores[f"{name}, best stage"] = [max(stage[name] for stage in net["stages"]) for net in nets]
        scores[f"{name}, last stage"] = [net["stages"][-1][name] for net in nets]
    for head in nets[0].get("chosen", ()):
        scores[f"ridge, stages by {head}"] = [net["chosen_scores"][head] for net in nets]
    scores["knn + ridge (mean rank, best stage)"] = mean_rank(scores, ["knn, best stage", "ridge, best stage"])
    if "box_r2, best stage" in scores:
        both = ["ridge, best stage", "box_r2, best stage"]
        scores["ridge + box_r2 (mean rank, best stage)"] = mean_rank(scores, both)
    scores["prior"] = [net["prior"] for net in nets]
    scores["ridge + prior (mean rank, best stage)"] = mean_rank(scores, ["ridge, best stage", "prior"])
    scores["logme + prior (mean rank, best stage)"] = mean_rank(scores, ["logme, best stage", "prior"])
    scores["number of parameters"] = [float(net["params"]) for net in nets]
    return scores


def mean_rank(scores: Mapping[str, Sequence[float]], names: Sequence[str]) -> list[float]:
    """The mean of the ranks by several scores, with equal ranks for equal scores; larger is better."""
    from scipy.stats import rankdata

    return np.mean([rankdata(scores[name]) for name in names], axis=0).tolist()


def summarise(splits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All figures, as {"mean", "low", "high", "values"} over the splits.

    `without` has them once more without the network that wins most often: a score that finds one outstanding network
    need not tell the others apart.
    """
    rewards = list(next(iter(splits[0]["networks"].values()))["reached"])
    summary: dict[str, Any] = {"against": agreements(splits, rewards)}
    wins = [
        max(split["networks"], key=lambda name: split["networks"][name]["reached"][rewards[0]]) for split in splits
    ]
    summary["winners"] = {name: wins.count(name) for name in dict.fromkeys(wins)}
    winner = max(summary["winners"], key=lambda name: summary["winners"][name])
    rest = [{"networks": {n: net for n, net in split["networks"].items() if n != winner}} for split in splits]
    summary["without"] = {"network": winner, "against": agreements(rest, rewards)}
    summary["reached"] = {
        reward: {
            name: mean_of(splits, lambda net, r=reward: net["reached"][r], name) for name in splits[0]["networks"]
        }
        for reward in rewards
    }
    summary["prior"] = {name: mean_of(splits, lambda net: net["prior"], name) for name in splits[0]["networks"]}
    summary["params"] = {name: net["params"] for name, net in splits[0]["networks"].items()}
    if "all" in rewards:
        summary["stages"] = stage_figures(splits)
    return summary


def agreements(splits: Sequence[Mapping[str, Any]], rewards: Sequence[str]) -> dict[str, Any]:
    """The figures of every score and hybrid, by what fine-tuning reaches."""
    found_by: dict[str, Any] = {}
    for reward in rewards:
        figures: dict[str, Figures] = {}
        for split in splits:
            found = split["networks"]
            truth = [net["reached"][reward] for net in found.values()]
            sizes = [float(net["params"]) for net in found.values()]
            scores = scores_of(found)
            for name, values in scores.items():
                add(figures.setdefault(name, {}), agreement([values], values, truth, sizes))
            for probe in ("ridge", "knn", "logme"):
                ordered = [scores[f"{probe}, best stage"], scores["prior"]]
                add(
                    figures.setdefault(f"hybrid: {probe} and prior in turn", {}),
                    agreement(ordered, None, truth, sizes),
                )
            add(figures.setdefault("the truth itself", {}), {"size": weighted_kendall(truth, sizes)})
            add(figures.setdefault("chance", {}), chance(truth))
        found_by[reward] = {name: intervals(each) for name, each in figures.items()}
    return found_by


def agreement(
    orders: Sequence[Sequence[float]], values: Sequence[float] | None, truth: Sequence[float], sizes: Sequence[float]
) -> dict[str, float]:
    """The figures of one score in one split; a hybrid of several `orders` has no values, only finalists."""
    found: dict[str, float] = {}
    if values is not None:
        found["tau"], found["size"] = weighted_kendall(values, truth), weighted_kendall(values, sizes)
        found["regret"] = first_choice_regret(values, truth)
    for count in COUNTS:
        chosen = finalists(orders, count)
        found[f"among_{count}"] = 100.0 * winner_among(chosen, truth)
        found[f"regret_{count}"] = max(truth) - max(truth[place] for place in chosen)
    return found


def chance(truth: Sequence[float]) -> dict[str, float]:
    """What a random order is worth, by its expectation."""
    random = np.random.default_rng(0)
    drawn = [agreement([v], v, truth, truth) for v in random.random((300, len(truth))).tolist()]
    return {key: float(np.mean([each[key] for each in drawn])) for key in drawn[0] if key != "size"}


def stage_figures(splits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the chosen stages reach beside the last one and all of them: means over networks, by split."""
    figures: Figures = {}
    for split in splits:
        nets = list(split["networks"].values())
        reached = {head: np.array([net["reached"][head] for net in nets]) for head in nets[0]["reached"]}
        row = {f"{head}, %": float(values.mean()) for head, values in reached.items()}
        row["all less last, points"] = float((reached["all"] - reached["last"]).mean())
        for head in nets[0]["chosen"]:
            for other in ("last", "all"):
                row[f"{head} less {other}, points"] = float((reached[head] - reached[other]).mean())
            chosen = [net["chosen"][head] for net in nets]
            row[f"{head}: stages"] = float(np.mean([len(stages) for stages in chosen]))
            held = [len(net["stages"]) - 1 in stages for net, stages in zip(nets, chosen, strict=True)]
            row[f"{head}: with the last stage, %"] = 100 * float(np.mean(held))
        row["all: stages"] = float(np.mean([len(net["stages"]) for net in nets]))
        add(figures, row)
    return intervals(figures)


def add(figures: Figures, row: Mapping[str, float]) -> None:
    """Append the figures of one more split."""
    for key, value in row.items():
        figures.setdefault(key, []).append(value)


def intervals(figures: Figures) -> dict[str, Any]:
    """The mean of each figure over the splits with its interval; splits where it is undefined do not count."""
    found = {}
    for key, values in figures.items():
        known = [value for value in values if not math.isnan(value)]
        if known:
            mean, low, high = (share_interval if key.startswith("among") else t_interval)(known)
            found[key] = {"mean": mean, "low": low, "high": high, "values": values}
    return found


def share_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of values of 0 or 100 with Clopper and Pearson's interval, or of shares in percent by Student's."""
    if not set(values) <= {0.0, 100.0}:
        return tuple(t_interval(values))
    from scipy.stats import beta

    hits, count = sum(value > 0 for value in values), len(values)
    low = beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return 100.0 * hits / count, 100.0 * float(low), 100.0 * float(high)


def mean_of(splits: Sequence[Mapping[str, Any]], value: Callable[[Any], float], name: str) -> float:
    """The mean of a network's value over the splits."""
    return float(np.mean([value(split["networks"][name]) for split in splits]))


def tables(summary: Mapping[str, Any]) -> str:
    """The figures in Markdown: against the usual head, the last stage's; the JSON has those against the others."""
    reward = next(iter(summary["against"]))
    wins = ", ".join(f"{name} {count}" for name, count in summary["winners"].items())
    lines = ["", f"Against what fine-tuning reaches ({reward}), {summary['splits']} splits; winners: {wins}", ""]
    lines += score_table(summary["against"][reward])
    lines += ["", f"The same without {summary['without']['network']}", ""]
    lines += score_table(summary["without"]["against"][reward])
    if "stages" in summary:
        lines += ["", "| choice of stages, mean over networks | |", "|---|---|"]
        lines += [f"| {name} | {cell(row, 2)} |" for name, row in summary["stages"].items()]
    rewards = list(summary["reached"])
    lines += ["", "| network | parameters | prior | " + " | ".join(rewards) + " |", "|---" * (len(rewards) + 3) + "|"]
    for name, params in summary["params"].items():
        values = [summary["prior"][name], *(summary["reached"][reward][name] for reward in rewards)]
        lines.append(f"| {name} | {params:,} | " + " | ".join(f"{value:.1f}" for value in values) + " |")
    return "\n".join(lines)


def score_table(figures: Mapping[str, Any]) -> list[str]:
    """The lines of a table with a row a score."""
    lines = ["| score | " + " | ".join(MEANS.values()) + " |", "|---" * (len(MEANS) + 1) + "|"]
    for name, row in figures.items():
        cells = [cell(row.get(key), 2 if key in ("tau", "size") else 1) for key in MEANS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def cell(figure: Mapping[str, Any] | None, digits: int) -> str:
    """A mean with its interval, if there is one."""
    if figure is None:
        return ""
    mean = f"{figure['mean']:.{digits}f}"
    if figure["low"] is None:
        return mean
    return f"{mean} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
