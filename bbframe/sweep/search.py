"""A search: Optuna proposes the next values from how the earlier ones did, and keeps all it knows in a file.

The journal lies in the sweep's folder, so that several processes, also of several machines on one file system, search
together, and so that a search which was killed goes on.
"""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bbframe.data.seeds import derive
from bbframe.schema import nearest
from bbframe.sweep.jobs import read_result
from bbframe.sweep.search_journal import JOURNAL, JournalLock, mend_journal
from bbframe.sweep.search_space import Space, as_override, distribution

STUDY = "search"
SAMPLERS = ("tpe", "random", "cmaes", "gp")
PRUNERS = ("none", "median", "hyperband")
COSTS = ("gmacs", "params", "latency_seconds", "peak_memory_bytes", "seconds")  # objectives to be made small


@dataclass(frozen=True)
class Trial:
    """A proposal: its number in the search, and its overrides."""

    number: int
    overrides: list[str]


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """`objectives` maps each name to "max" or "min"; empty: the metric that the task monitors, to its best.

    `fixed` are the overrides that every trial has.
    `max_epochs` is what the pruner hyperband divides, and `mode` whether more of the monitored metric is better.
    """

    trials: int
    sampler: str = "tpe"
    pruner: str = "none"
    objectives: Mapping[str, str]
    fixed: tuple[str, ...] = ()
    seed: int = 0
    max_epochs: int = 1
    mode: str = "max"

    def __post_init__(self) -> None:
        for key, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            given = getattr(self, key)
            if given not in known:
                raise ValueError(
                    f"hydra.sweeper.{key}={given}: must be one of {', '.join(known)}{nearest(given, known)}"
                )
        if self.pruner != "none" and len(self.objectives) > 1:
            raise ValueError(
                f"hydra.sweeper.pruner={self.pruner} compares one value, and hydra.sweeper.objectives names "
                f"{len(self.objectives)}; drop the pruner, or all but one objective"
            )

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """Optuna's name of each objective's direction."""
        modes = list(self.objectives.values()) or [self.mode]
        return ["maximize" if mode == "max" else "minimize" for mode in modes]


def require_optuna() -> None:
    """Raise ValueError when Optuna is not there."""
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            "hydra.sweeper.trials needs a package that is not installed: pip install 'bbframe[search]'"
        ) from error


def read_objectives(given: Any) -> dict[str, str]:
    """{name: "max" or "min"} from a list of names, one name, or such a mapping. Raises ValueError in one line.

    A metric's name may have its part in front (val/accuracy). Losses and costs are made small, all else large.
    """
    if isinstance(given, str):
        given = given.split(",")
    if not isinstance(given, Mapping):
        given = dict.fromkeys(given or (), None)
    found = {}
    for name, mode in given.items():
        name = str(name).removeprefix("val/")
        if mode not in (None, "max", "min"):
            raise ValueError(f"hydra.sweeper.objectives: {name}: {mode} must be max or min")
        if name.startswith("test/"):
            raise ValueError(f"hydra.sweeper.objectives: {name} would choose by the test images; use val/{name[5:]}")
        found[name] = mode or ("min" if name in COSTS or "loss" in name else "max")
    return found


class Search:
    """The trials in a sweep's folder. Raises ValueError for a journal of another search."""

    def __init__(self, folder: Path, options: SearchOptions, space: Space) -> None:
        require_optuna()
        import optuna
        from optuna.storages.journal import JournalFileBackend

        folder = folder.absolute()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder, self.options, self.space = folder, options, space
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Optuna calls experimental
            lock: Any = JournalLock(folder / f".{JOURNAL}.lock")
            mend_journal(folder / JOURNAL, lock)
            try:
                self.storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL), lock))
                there = [study.directions for study in self.storage.get_all_studies()]
                self.study = optuna.create_study(
                    storage=self.storage,
                    study_name=STUDY,
                    directions=there[0] if there else options.directions,
                    load_if_exists=True,
                    pruner=self._pruner(),
                )
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{folder / JOURNAL}: is damaged; a new folder begins the search anew, and the runs that are done "
                    "stay in this one"
                ) from error
        asked: dict[str, Any] = {
            "space": {key: str(domain) for key, domain in space.items()},
            "objectives": dict(options.objectives) or {"the task's own": options.mode},
            "options": list(options.fixed),
        }
        known = self.study.user_attrs.get("asked")
        if known is None:
            self.study.set_user_attr("asked", asked)
        elif (part := next((part for part in asked if known.get(part) != asked[part]), None)) is not None:
            raise ValueError(
                f"{folder} holds a search whose {part} is {_listed(known.get(part))}, and now it is "
                f"{_listed(asked[part])}; give another folder, or none for a new one"
            )
        for trial in self.study.get_trials(deepcopy=False, states=(_state("RUNNING"),)):
            if len(trial.params) < len(space):  # killed before all of its values were written
                self.study.tell(trial.number, state=_state("FAIL"))

    def ask(self) -> Trial | None:
        """The next proposal; None when all trials have been proposed."""
        if self._count() >= self.options.trials:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.study.sampler = self._sampler(len(self.study.get_trials(deepcopy=False)))
            asked = self.study.ask({key: distribution(domain) for key, domain in self.space.items()})
        if self._count() > self.options.trials:  # another process has proposed at the same moment
            self.study.tell(asked.number, state=_state("FAIL"))
            return None
        return Trial(asked.number, [as_override(key, value) for key, value in asked.params.items()])

    def _count(self) -> int:
        """The proposals, but for those that were broken off before they were complete."""
        return sum(trial.state != _state("FAIL") for trial in self.study.get_trials(deepcopy=False))

    @property
    def folders(self) -> set[str]:
        """The folders that are given to trials."""
        return {str(t.user_attrs["folder"]) for t in self.study.get_trials(deepcopy=False) if "folder" in t.user_attrs}

    def open_trials(self) -> list[Trial]:
        """The proposals without an outcome: running, killed or failed."""
        return self._trials("RUNNING")

    def ended_trials(self) -> list[Trial]:
        """The proposals with a result, whether they were pruned or not."""
        return self._trials("COMPLETE", "PRUNED")

    def _trials(self, *states: str) -> list[Trial]:
        frozen = self.study.get_trials(deepcopy=False, states=tuple(map(_state, states)))
        return [
            Trial(t.number, [as_override(key, t.params[key]) for key in self.space if key in t.params]) for t in frozen
        ]

    def note(self, trial: Trial, folder: str, sha256: str | None) -> None:
        """Write down where a trial runs, and the hash of its configuration."""
        identity = self._trial_id(trial.number)
        self.storage.set_trial_user_attr(identity, "folder", folder)
        self.storage.set_trial_user_attr(identity, "sha256", sha256)

    def folder_of(self, trial: Trial) -> str | None:
        """Where a trial runs, None before that is known."""
        return self.study.get_trials(deepcopy=False)[trial.number].user_attrs.get("folder")

    def finished_twin(self, sha256: str) -> str | None:
        """The folder of a trial that has ended with the same configuration."""
        for other in self.study.get_trials(deepcopy=False, states=(_state("COMPLETE"), _state("PRUNED"))):
            if other.user_attrs.get("sha256") == sha256:
                return str(other.user_attrs["folder"])
        return None

    def tell(self, trial: Trial, folder: Path) -> bool:
        """Report the result that a trial has left in a folder; False when there is none, which leaves it open."""
        result = read_result(folder)
        if result is None:
            return False
        if result["status"] == "pruned":
            self.study.tell(trial.number, state=_state("PRUNED"))
            return True
        self.study.tell(trial.number, objective_values(result, folder, self.options.objectives))
        return True

    def best(self) -> list[tuple[str, list[str], list[float]]]:
        """(folder, overrides, values) of the best trial; with several objectives, of the Pareto set."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trials = self.study.best_trials
        names = list(self.space)
        return [
            (str(t.user_attrs.get("folder")), [as_override(k, t.params[k]) for k in names if k in t.params], t.values)
            for t in trials
        ]

    def stops(self, number: int, epoch: int, value: float) -> bool:
        """Note a trial's value after an epoch, counted from 1; returns whether the pruner gives the trial up."""
        identity = self._trial_id(number)
        if math.isfinite(value) and epoch not in self.storage.get_trial(identity).intermediate_values:
            self.storage.set_trial_intermediate_value(identity, epoch, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(self.study.pruner.prune(self.study, self.storage.get_trial(identity)))

    def _trial_id(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(STUDY)
        return int(self.storage.get_trial_id_from_study_id_trial_number(study, number))

    def _sampler(self, count: int) -> Any:
        """A sampler whose draws depend on the seed and the number of trials alone, so that a resume repeats them."""
        from optuna.samplers import CmaEsSampler, GPSampler, RandomSampler, TPESampler

        seed = derive(self.options.seed, "search", count) % 2**31
        if self.options.sampler == "cmaes":
            return CmaEsSampler(seed=seed)
        if self.options.sampler == "tpe":
            return TPESampler(seed=seed, multivariate=True, constant_liar=True)
        return {"random": RandomSampler, "gp": GPSampler}[self.options.sampler](seed=seed)

    def _pruner(self) -> Any:
        from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

        if self.options.pruner == "hyperband":
            return HyperbandPruner(min_resource=1, max_resource=max(1, self.options.max_epochs))
        return MedianPruner() if self.options.pruner == "median" else NopPruner()


def objective_values(result: Mapping[str, Any], folder: Path, objectives: Mapping[str, str]) -> list[float]:
    """The values of a finished run, metrics by validation at its best epoch. Raises ValueError for an unknown name."""
    if not objectives:
        objectives = {result["metric"]: "max"}
    metric = result["metric"]
    row = _best_row(folder, result.get("best_epoch"), metric, (result.get("val") or {}).get(metric))
    values = []
    for name in objectives:
        known = {**row, **(result.get("val") or {}), **{cost: result.get(cost) for cost in COSTS}}
        known["seconds"] = result["seconds"]["total"]
        if known.get(name) is None:
            measured = sorted(key for key, value in known.items() if value is not None)
            raise ValueError(f"hydra.sweeper.objectives: the run measures no {name!r}{nearest(name, measured)}")
        values.append(float(known[name]))
    return values


def _best_row(folder: Path, epoch: int | None, metric: str, best: float | None) -> dict[str, float]:
    """The validation metrics of an epoch, from metrics.csv: of several validations the one with the best value."""
    found: dict[str, float] = {}
    with suppress(OSError), (folder / "metrics.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get("epoch") == str(epoch) and (not found or found.get(metric) != best):
                found = {k.removeprefix("val/"): float(v) for k, v in row.items() if k.startswith("val/") and v}
    return found


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _listed(asked: Any) -> str:
    items = [f"{key}={text}" for key, text in asked.items()] if isinstance(asked, Mapping) else asked or ["none"]
    return ", ".join(items)
