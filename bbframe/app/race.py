"""The race of a ranking's finalists: rungs of training runs, each rung a sweep in a folder of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bbframe.app.command_line import key_of, names_hydra, quoted
from bbframe.app.composition import composition
from bbframe.app.run_request import RunRequest
from bbframe.app.sweep_folder import SweepFolder, checked_job
from bbframe.files import write_text
from bbframe.rank.race_plan import JOB_SECONDS, entrants_within, epochs_of_rung, kept_of, rungs_of
from bbframe.sweep.job_lock import is_running
from bbframe.sweep.jobs import Job, read_result

PLAN = "race.json"
NO_TEST = "there are no test images: what the race calls test is measured on the validation images"


@dataclass
class Entrant:
    """A finalist: the overrides that train it, and the seconds that an epoch takes as far as is known."""

    name: str
    overrides: list[str]
    seconds_an_epoch: float


@dataclass
class Race:
    """A race in `folder`, `deadline` in seconds since the epoch.

    `base` are the overrides of the user's own command that all entrants share, `hydra` those of Hydra's own settings,
    such as a launcher. `places` say where configuration is, as `composition` takes them. `rungs` are in the words of
    rank.json, and `notes` say what did not go as asked.
    """

    folder: Path
    base: list[str]
    hydra: list[str]
    places: Mapping[str, Any]
    seeds: Sequence[int]
    max_epochs: int
    deadline: float
    train: Callable[[list[str]], int]
    flags: dict[str, str] = field(default_factory=dict)
    rungs: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    metric: str = ""
    mode: str = "max"

    def run(self, entrants: Sequence[Entrant]) -> str | None:
        """Race until one is left or the time is used up; returns the winner's name, None when nobody finished.

        A race that was killed goes on: what its rungs were is read from its folder.
        """
        known = {entrant.name: entrant for entrant in entrants}
        for number in range(1, 20):
            written = self._read_rung(number)
            if written is None:
                written = self._plan_rung(number, list(known.values()))
                if written is None:
                    break
            running = [known[name] for name in written["entrants"] if name in known]
            kept = self._run_rung(number, running, written)
            known = {name: known[name] for name in kept}  # whom the first rung had no time for is out too
            if written["epochs"] >= self.max_epochs or len(known) <= 1 or not kept:
                break
        last = next((rung for rung in reversed(self.rungs) if rung["kept"]), None)
        return last["kept"][0] if last else None

    def _read_rung(self, number: int) -> dict[str, Any] | None:
        path = self.folder / f"rung{number}" / PLAN
        try:
            rung: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return rung
        except (OSError, ValueError):
            return None

    def _plan_rung(self, number: int, entrants: Sequence[Entrant]) -> dict[str, Any] | None:
        left = self.deadline - time.time()
        costs = {entrant.name: entrant.seconds_an_epoch for entrant in entrants}
        if number == 1:
            names, epochs = entrants_within(list(costs), costs, left, self.max_epochs, len(self.seeds))
            if lost := [name for name in costs if name not in names]:
                need = (min(costs[name] for name in lost) + JOB_SECONDS) * len(self.seeds)
                self.notes.append(
                    f"the budget leaves {max(left, 0):.0f} s for the race, too little for an epoch of "
                    f"{', '.join(lost)} too (about {need:.0f} s at least); give a larger budget="
                )
        else:
            names = list(costs)
            epochs = epochs_of_rung(list(costs.values()), left, rungs_of(len(names)), self.max_epochs, len(self.seeds))
            if epochs is not None and epochs <= self.rungs[-1]["epochs"]:
                epochs = None  # nothing would be learnt that is not known
        if epochs is None:
            return None
        rung = {"entrants": names, "epochs": epochs}
        folder = self.folder / f"rung{number}"
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / PLAN, json.dumps(rung))
        return rung

    def _run_rung(self, number: int, entrants: Sequence[Entrant], rung: Mapping[str, Any]) -> list[str]:
        """Train the entrants of a rung; returns those that go on, the best first."""
        folder = self.folder / f"rung{number}"
        jobs = self._jobs(folder, entrants, rung["epochs"])
        left = max(self.deadline - time.time(), 1)
        if any(read_result(job.folder) is None for own in jobs.values() for job in own):
            print(f"\nrung {number}: {rung['epochs']} epochs of {', '.join(jobs)}", flush=True)
            # the first rung's jobs have been planned to fit; later starts are refused by what they took before
            budget = [f"hydra.sweeper.budget={left:.0f}s"] if number > 1 else []
            self.train([f"resume={quoted(folder)}", *self.hydra, *budget, *self._flag_words()])
        scores: dict[str, float | None] = {}
        for name, own in jobs.items():
            done = [(job, result) for job in own if (result := read_result(job.folder)) is not None]
            scores[name] = self._noted(name, number, rung["epochs"], done)
            if not done and not any(is_running(job.folder) for job in own):
                self.notes.append(f"{name} did not finish rung {number}; {folder / 'report.html'} says why")
            for entrant in entrants:
                if entrant.name == name and done:
                    seconds = [result["seconds"].get("fit") or result["seconds"]["total"] for _, result in done]
                    entrant.seconds_an_epoch = max(seconds) / max(rung["epochs"], 1)
        kept = kept_of(scores, self.mode)
        place = folder.relative_to(self.folder.parent)
        self.rungs.append({"folder": str(place), "epochs": rung["epochs"], "entrants": list(jobs), "kept": kept})
        return kept

    def _noted(self, name: str, number: int, epochs: int, done: Sequence[tuple[Job, Any]]) -> float | None:
        """Remember an entrant's results of a rung, means over its seeds; returns the validation's."""
        if not done:
            return None
        results = [result for _, result in done]
        self.metric, self.mode = results[0]["metric"], results[0].get("mode") or "max"
        if results[0].get("test_part") == "val" and NO_TEST not in self.notes:
            self.notes.append(NO_TEST)
        values = {part: _mean([r.get(part, {}).get(self.metric) for r in results]) for part in ("val", "test")}
        ends = {end: _mean([r.get(end, {}).get(self.metric) for r in results]) for end in ("test_low", "test_high")}
        self.results[name] = {
            "rung": number,
            "epochs": epochs,
            **values,
            **ends,
            "runs": len(results),
            "seconds": round(sum(r["seconds"]["total"] for r in results), 1),
            "folder": str(done[0][0].folder.relative_to(self.folder.parent)),
        }
        return values["val"] if values["val"] is not None else values["test"]

    def _jobs(self, folder: Path, entrants: Sequence[Entrant], epochs: int) -> dict[str, list[Job]]:
        """The checked jobs of a rung by entrant, in the sweep's record. One that is refused is noted, and is out."""
        found: dict[str, list[Job]] = {}
        with composition(**self.places) as compose:
            for entrant in entrants:
                for seed in self.seeds:
                    given = [*self.base, *entrant.overrides, f"seed={seed}", f"trainer.max_epochs={epochs}"]
                    given = given if self.max_epochs > 0 else given[:-1]
                    checked = checked_job(compose, given)
                    if checked.job is None or checked.request is None:
                        self.notes.append(f"{entrant.name} cannot be trained: {checked.error}")
                        continue
                    request = RunRequest(compose, [*given, f"hydra.sweep.dir={quoted(folder)}"])
                    place = SweepFolder.open(request, given, self.flags)
                    jobs, _, _ = place.settle([checked])
                    found.setdefault(entrant.name, []).extend(jobs)
        return found

    def _flag_words(self) -> list[str]:
        return [word for name, value in self.flags.items() for word in (f"--{name}", value)]


def hydra_words(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of the run, and those of Hydra's own settings."""
    own = [override for override in overrides if names_hydra(override) and key_of(override) != "hydra.searchpath"]
    return [override for override in overrides if override not in own], own


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None
