"""`bbframe rank`: looks at a user's images through every backbone, says which are worth training, and trains them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbframe.app.command_line import key_of, parse_arguments
from bbframe.app.rank_folder import RESULT, check_rank_folder, make_folder, question

if TYPE_CHECKING:
    from bbframe.app.composition import Compose
    from bbframe.rank.candidates import Candidate
    from bbframe.rank.gathering import Gathered
    from bbframe.rank.rank_options import RankOptions
    from bbframe.run.configuration import Configuration

NO_WEIGHTS = (
    "rank: no weights can be had ({}); where there is a network run `hf download microsoft/resnet-50` and so on, or "
    "give folders of weights: backbones=<folder>; pretrained=false ranks untrained networks, which says little"
)
LOOKING = 0.6  # share of the budget after which no further backbone is looked at, because the rest is for the race


def rank_backbones(arguments: Sequence[str]) -> int:
    """Rank backbones as a command line says, and print the table; returns the exit code."""
    from bbframe.rank.rank_options import read_rank_arguments

    options, others = read_rank_arguments(arguments)
    command = parse_arguments(others)
    for mode in ("multirun", "cfg", "info", "dry_run", "resolve", "hydra_help"):
        if getattr(command, mode):
            raise ValueError(
                f"bbframe rank has no --{mode.replace('_', '-')}; bbframe rank --help shows what there is"
            )
    from bbframe.app.execution import load_plugins
    from bbframe.sweep.budget import parse_budget

    load_plugins(command.plugin)
    try:
        seconds = parse_budget(options.budget)
    except ValueError:
        raise ValueError(f"budget={options.budget} must be a time with its unit, such as 90s, 15m or 2h") from None
    return RankCommand(options, command, seconds).complete()


@dataclass
class RankCommand:
    """A ranking in its steps; `result` becomes rank.json."""

    options: RankOptions
    command: argparse.Namespace
    budget: float
    started: float = field(default_factory=time.time)
    notes: list[str] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    def complete(self) -> int:
        """Look, score, race and report."""
        from bbframe.app.composition import composition

        base = self.base()
        with composition(**self.command.places) as compose:
            found = self.candidates(compose)
            plans = self.plans(compose, base, found)
        self.result["question"] = question(self.options, base, list(plans))
        check_rank_folder(self.options.out, self.result["question"])
        plan = next(iter(plans.values()))[0]
        try:
            gathered = self.gathered(plans)
        except KeyboardInterrupt:
            print("\nthe features so far are kept; the same command goes on from there")
            raise
        self.scored(gathered)
        folder = make_folder(self.options.out, plan.run.output_dir, plan.data.name)
        self.write(folder)
        try:
            if self.options.finalists:
                self.race(base, plans, folder)
            self.finish(base, plans, folder)
        except KeyboardInterrupt:
            print(f"\nthe scores are in {folder}; the same command with out={folder} goes on with the race")
            raise
        return int(bool(self.result["race"]) and not self.result["race"]["winner"])

    def base(self) -> list[str]:
        """The user's overrides, with the task of the data, and with what keeps one broken image from ending it all."""
        from bbframe.registry import find, names

        given = list(self.command.overrides)
        keys = {key_of(override) for override in given}
        chosen = next((o.partition("=")[2] for o in given if key_of(o) == "data"), None)
        if chosen in names("data") and "task" not in keys:
            task = getattr(find("data", chosen).options, "task", "classification")
            given = [*([f"task={task}"] if task != "classification" else []), *given]
        if self.options.image_size is not None:
            size = self.options.image_size
            text = str(size) if isinstance(size, int) else f"[{size[0]},{size[1]}]"
            given.append(f"data.image_size={text}")
        return given

    def candidates(self, compose: Compose) -> list[Candidate]:
        """The candidates that the options name. Raises ValueError when none can be had."""
        from bbframe.app.rank_candidates import find_candidates
        from bbframe.data.faults import first_few
        from bbframe.run.masking import outward

        found = find_candidates(
            compose, self.options.backbones, self.command.config_dir, pretrained=self.options.pretrained
        )
        self.failed += [{"name": name, "reason": why} for why, names in found.left_out.items() for name in names]
        self.notes += found.notes
        if not found.candidates:
            reasons = "; ".join(f"{first_few(names)}: {reason}" for reason, names in found.left_out.items())
            raise ValueError(NO_WEIGHTS.format(reasons or "none are in the cache"))
        for reason, names in found.left_out.items():
            print(outward(f"left out, {reason}: {', '.join(names)}"), file=sys.stderr)
        return found.candidates

    def plans(
        self, compose: Compose, base: Sequence[str], found: Sequence[Candidate]
    ) -> dict[str, tuple[Configuration, Candidate]]:
        """The checked configuration of each candidate; one that is wrong is named. Raises ValueError when all are."""
        from bbframe.app.rank_candidates import request_of
        from bbframe.run.configuration import parse_configuration

        plans: dict[str, tuple[Configuration, Candidate]] = {}
        errors: list[ValueError] = []
        for one in found:
            try:
                data = request_of(compose, base, one, self.options.pretrained).data
                if "on_error" in data["data"] and not any(key_of(o) == "data.on_error" for o in base):
                    data["data"] |= {"on_error": "skip", "max_errors": 10**9}
                plans[one.name] = (parse_configuration(data), one)
            except ValueError as error:
                errors.append(error)
                self.failed.append({"name": one.name, "reason": str(error)})
        if not plans:
            raise errors[0]
        return plans

    def gathered(self, plans: Mapping[str, tuple[Configuration, Candidate]]) -> list[Gathered]:
        """What each network makes of the images; one that fails is named with its reason."""
        from bbframe.app.rank_progress import features_shown
        from bbframe.data.faults import first_few
        from bbframe.extraction.feature_set import ImageChoice
        from bbframe.extraction.feature_store import features_root, trim_features
        from bbframe.rank.gathering import gather, images_to_look_at, open_images
        from bbframe.run.masking import outward
        from bbframe.run.results import log_images

        plan = next(iter(plans.values()))[0]
        data = open_images(plan)
        self.result |= log_images(data, min(plan.backbone.config.strides))
        choice = ImageChoice.of(data, "train", images_to_look_at(data, "train", self.options.images, plan.run.seed))
        lost = {**data.skipped, **{data.source("train", index): why for index, why in choice.lost.items()}}
        if lost:
            told = first_few([f"{name} ({why})" for name, why in lost.items()])
            self.notes.append(f"{len(lost)} images cannot be read and are left out: {told}")
        if len(choice.indices) < 2 * len(data.class_names) and plan.task.name == "classification":
            self.notes.append("there are fewer than two images a class: the scores say little; give images=...")
        root = features_root()
        found: list[Gathered] = []
        self.result |= {"class_names": data.class_names, "part": "train", "images": len(choice.indices)}
        self.result |= {"task": plan.task.name, "data": plan.data.name, "seed": plan.run.seed}
        self.images = data
        with features_shown(len(plans), len(choice.indices)) as shown:
            for name, (own, one) in plans.items():
                if found and time.time() - self.started > LOOKING * self.budget and self.options.finalists:
                    self.failed.append({"name": name, "reason": f"left out for budget={self.options.budget}"})
                    continue
                try:
                    with shown.backbone(name):
                        found.append(gather(one, own, data, choice, root, shown.advance))
                except Exception as error:  # one network that fails must not end the others' ranking
                    reason = outward(" ".join(str(error).split()) or type(error).__name__)
                    self.failed.append({"name": name, "reason": reason})
                    shown.say(f"FAILED {name}: {reason}")
        trim_features(root, keep=[one.features.store.folder for one in found])
        if not found:
            raise ValueError(f"rank: no backbone could look at the images: {self.failed[0]['reason']}")
        return found

    def scored(self, gathered: Sequence[Gathered]) -> None:
        """Score what was gathered, and order it."""
        from bbframe.app.rank_progress import scores_shown
        from bbframe.app.rank_report import image_map
        from bbframe.rank.backbone_ranking import MEANINGS, MOST_COMPARED, SCORE, ordered, score_backbone
        from bbframe.rank.gathering import features_of_common_images
        from bbframe.rank.imagenet_prior import read_priors
        from bbframe.rank.race_plan import choose_finalists
        from bbframe.rank.resampling import Resampling

        rows = features_of_common_images(gathered, len(self.result["class_names"]))
        resampling = Resampling(rows.images, seed=self.result["seed"])
        with scores_shown(sum(len(one.features.keys) for one in gathered)) as advance:
            scored = [score_backbone(one, rows, resampling, advance) for one in gathered]
        self.failed += [{"name": one.facts["name"], "reason": one.failure} for one in scored if one.failure]
        backbones = ordered(scored, resampling)
        if not backbones:
            raise ValueError(f"rank: no backbone can be scored: {self.failed[-1]['reason']}")
        priors = read_priors()
        timm_names = {one.candidate.name: one.candidate.timm_name for one in gathered}
        for line in backbones:
            known = None if line["untrained"] else priors.get(timm_names[line["name"]] or "")
            line |= {"prior": known, "finalist": None, "race": None}
        for name, kind in choose_finalists(backbones, self.options.finalists).items():
            next(line for line in backbones if line["name"] == name)["finalist"] = kind
        self.result |= {
            "status": "ok",
            "score": SCORE,
            "score_of": "the best stage",
            "stage_score": "ridge" if rows.several else "box_r2",
            "scores": MEANINGS,
            "rows": len(rows.labels),
            "untrained": any(line["untrained"] for line in backbones),
            "backbones": backbones,
            "race": None,
        }
        if not rows.several:
            self.notes.append("all objects have one class: features are scored by what they say of the objects' sizes")
        if len(rows.labels) > MOST_COMPARED:
            self.notes.append(f"nearest neighbours are sought among {MOST_COMPARED} of the {len(rows.labels)} rows")
        first = next(one for one in gathered if one.candidate.name == backbones[0]["name"])
        self.map = image_map(self.result, self.images, first, rows)

    def race(self, base: Sequence[str], plans: Mapping[str, tuple[Configuration, Candidate]], folder: Path) -> None:
        """Train the finalists within the time that is left, and note how they did."""
        from bbframe.app.race import Race, hydra_words
        from bbframe.app.rank_recommendation import entrants_of
        from bbframe.app.train import train

        plan = next(iter(plans.values()))[0]
        base = [*base, *self.tolerance()]
        entrants = entrants_of(
            self.result["backbones"], plans, base, self.options.pretrained, self.images.counts["train"]
        )
        own, hydra = hydra_words(base)
        flags = {"config-dir": str(self.command.config_dir)} if self.command.config_dir else {}
        race = Race(
            folder / "race",
            own,
            hydra,
            self.command.places,
            self.options.seeds,
            plan.trainer.max_epochs,
            self.started + self.budget,
            train,
            flags,
        )
        winner = race.run(entrants)
        self.notes += race.notes
        for row in self.result["backbones"]:
            row["race"] = race.results.get(row["name"])
        if race.rungs:
            self.result["race"] = {"rungs": race.rungs, "winner": winner, "metric": race.metric, "mode": race.mode}

    def tolerance(self) -> list[str]:
        """What a training needs so that the images that cannot be read do not end it."""
        if not self.images.skipped or any(key_of(o) == "data.on_error" for o in self.command.overrides):
            return []
        most = len(self.images.skipped)
        return ["data.on_error=skip", *([f"data.max_errors={most}"] if most > 100 else [])]

    def finish(self, base: Sequence[str], plans: Mapping[str, Any], folder: Path) -> None:
        """Write the recommendation, the table, the pictures and the page; print what matters."""
        from bbframe.app.rank_recommendation import entrant_overrides, shell_word
        from bbframe.report.ranking_table import ranking_text

        race = self.result["race"]
        name = (race and race["winner"]) or self.result["backbones"][0]["name"]
        row = next(row for row in self.result["backbones"] if row["name"] == name)
        own = entrant_overrides(row, plans[name], base, self.options.pretrained)
        words = [*base, *self.tolerance(), *own]
        self.result["command"] = " ".join(["bbframe train", *map(shell_word, words)])
        self.result["recommended"] = name
        self.write(folder)
        print(f"\n{ranking_text(self.result)}\n")
        what = "the winner" if race and race["winner"] else "the first"
        print(f"train {what} in full:\n  {self.result['command']}\n\n{folder / 'report.html'}")

    def write(self, folder: Path) -> None:
        """Write what is known so far: rank.json, the table, the pictures and the page."""
        from bbframe.app.rank_report import write_rank_files
        from bbframe.files import write_text

        self.result |= {"failed": self.failed, "notes": self.notes, "budget_seconds": self.budget}
        self.result |= {"seconds": round(time.time() - self.started, 1), "folder": str(folder)}
        self.result.setdefault("command", "")
        write_text(folder / RESULT, json.dumps(self.result, indent=2))
        write_rank_files(folder, self.result, self.map)
