"""The options of a sweep: `hydra.sweeper.*`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from bbframe.run.configuration import Configuration
from bbframe.run.masking import mask_overrides
from bbframe.sweep.budget import parse_budget
from bbframe.sweep.search import SearchOptions, read_objectives, require_optuna

SEARCH = ("sampler", "pruner", "objectives")


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """`params` maps keys to the values to sweep, as a recipe gives them. `trials` makes the sweep a search; `sampler`
    (tpe, random, cmaes, gp), `pruner` (none, median, hyperband) and `objectives` say how it searches.
    `jobs_per_device` is how many jobs share a GPU; `budget`, such as 30m, is a time after which no job is started.
    """

    params: dict[str, Any] = field(default_factory=dict)
    trials: int | None = None
    sampler: str = "tpe"
    pruner: str = "none"
    objectives: dict[str, str] = field(default_factory=dict)
    jobs_per_device: int | None = None
    budget: str | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> SweepOptions:
        """The options from what Hydra hands over. Raises ValueError in one line."""
        known = {name: value for name, value in given.items() if value is not None}
        for name in ("trials", "jobs_per_device"):
            value = known.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100_000:
                raise ValueError(f"hydra.sweeper.{name}={value} must be a whole number from 1 on")
        known["params"] = {str(key): value for key, value in (known.get("params") or {}).items()}
        known["objectives"] = read_objectives(known.get("objectives"))
        for name in ("sampler", "pruner"):
            known[name] = str(known.get(name, "none")).lower()
        known.setdefault("sampler", "tpe")
        if "budget" in known:
            parse_budget(known["budget"])
        options = cls(**known)
        if options.trials is None:
            for name in SEARCH:
                if getattr(options, name) != getattr(cls(), name):
                    raise ValueError(f"hydra.sweeper.{name} belongs to a search; add hydra.sweeper.trials=30")
        else:
            require_optuna()
        return options

    def of_search(self, plan: Configuration, fixed: Sequence[str]) -> SearchOptions:
        """The options of the search, whose runs are like `plan`, which the `fixed` overrides gave.

        Raises ValueError in one line.
        """
        from bbframe.registry import find

        assert self.trials is not None
        return SearchOptions(
            trials=self.trials,
            sampler=self.sampler,
            pruner=self.pruner,
            objectives=self.objectives,
            fixed=tuple(sorted(mask_overrides(fixed))),
            seed=plan.run.seed,
            max_epochs=plan.trainer.max_epochs,
            mode=getattr(find("task", plan.task.name).load(), "mode", "max"),
        )

    def recorded(self) -> list[str]:
        """The overrides that repeat these options, less `params`, which are among the sweep's own, and the budget."""
        default, lines = SweepOptions(), []
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in ("params", "budget") or value == getattr(default, option.name):
                continue
            text = "{" + ",".join(f"{k}: {v}" for k, v in value.items()) + "}" if isinstance(value, dict) else value
            lines.append(f"hydra.sweeper.{option.name}={text}")
        return lines
