"""Compose a configuration from conf/, recipes/ and the command line, check it, run it: `python train.py --help`."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent  # conf/ and recipes/ lie beside this file, in the checkout as in the wheel
RUN_FOLDER = "BBFRAME_RUN_FOLDER"  # tells the other processes of a run on several devices where it writes
Job = tuple[dict[str, Any], list[str], Path]  # a configuration, the overrides that made it, its run folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; the exit code is 0 when all of it succeeded."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(arguments):
        print(usage())
        return 0
    try:
        command = parse(arguments)
        with composition(command.config_dir) as compose:
            if command.cfg:
                print(shown(configuration(compose, command.overrides)[0]))
                return 0
            axes = swept(compose, command.overrides, command.multirun)
            if axes is not None:
                return sweep(compose, [*axes, *command.overrides])
            return single(compose, command.overrides)
    except KeyboardInterrupt:
        folder = os.environ.get(RUN_FOLDER, "<run folder>")
        print(f"interrupted; this continues it: python train.py ckpt_path={folder}/checkpoints/last.ckpt")
        return 130
    except Exception as error:
        return explain(error, arguments)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags, which are Hydra's, and the overrides."""
    parser = argparse.ArgumentParser(prog="train.py", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job"])
    parser.add_argument("--resolve", action="store_true")  # Hydra's companion of --cfg; values are always resolved
    parser.add_argument("--config-dir", "-cd", type=Path)
    try:
        command, foreign = parser.parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(f"{error}; --help shows what there is") from error
    if foreign:
        raise ValueError(f"unknown flag {foreign[0]!r}; --help shows what there is")
    for override in command.overrides:
        if "=" not in override and not override.startswith("~"):
            raise ValueError(f"{override!r} is no override; write key=value, such as backbone=resnet")
    return command


def single(compose: Callable[[list[str]], Any], overrides: list[str]) -> int:
    """One run in a new folder."""
    from bbframe.run.configuration import parse_configuration
    from bbframe.run.record import reserve_folder

    config, overrides = configuration(compose, overrides)
    plan = parse_configuration(config)
    if os.environ.get("LOCAL_RANK", "0") != "0":  # one of several processes: the first makes the folder and writes
        folder = Path(os.environ.get(RUN_FOLDER, plan.run.output_dir))
    else:
        name = plan.run.name or plan.backbone_name
        folder = reserve_folder(Path(plan.run.output_dir), plan.task.name, name, datetime.now())
    os.environ[RUN_FOLDER] = str(folder)
    execute((config, overrides, folder))
    return 0


def execute(job: Job) -> None:
    """Train and test; everything heavy is imported here, after the configuration has been checked."""
    from bbframe.run.run import run

    run(*job, secrets=_secrets)


def sweep(compose: Callable[[list[str]], Any], overrides: list[str]) -> int:
    """Every combination of the swept values, by Hydra's launcher; a job that fails leaves the others alone."""
    from bbframe.report import leaderboard
    from bbframe.run.configuration import parse_configuration
    from bbframe.run.record import reserve_folder

    hydra_overrides = [o for o in overrides if _key(o).startswith(("hydra.", "hydra/"))]
    if any(_key(o) == "hydra/sweeper" for o in hydra_overrides):
        raise ValueError("hydra/sweeper: a sweep runs every combination of the values given; leave it out")
    plain(compose, hydra_overrides)  # a launcher that is misspelt or not installed shows here
    combinations = expand([o for o in overrides if o not in hydra_overrides])
    jobs: list[Job] = []
    failed: list[tuple[list[str], Exception]] = []
    plans = []
    for combination in combinations:
        try:
            config, complete = configuration(compose, combination)
            config["trainer"]["devices"] = one_device(config["trainer"]["devices"])
            plans.append(parse_configuration(config))
            jobs.append((config, complete, Path()))
        except ValueError as error:
            failed.append((combination, error))
    if not jobs:
        raise ValueError("\n".join(dict.fromkeys(str(error) for _, error in failed)))
    root, task = plans[0].run.output_dir, plans[0].task.name
    folder = reserve_folder(Path(root), task, plans[0].run.name or "sweep", datetime.now())
    print(f"{len(combinations)} runs in {folder}")
    for index, (combination, error) in enumerate(failed, start=len(jobs)):
        report_failure(folder / f"{index}_failed", combination, error)
    jobs = [(c, o, folder / f"{i}_{plans[i].backbone_name}") for i, (c, o, _) in enumerate(jobs)]
    try:
        launch(jobs, hydra_overrides, folder)
        for _, complete, job_folder in jobs:  # a launcher of other processes may lose one without a word
            if not any((job_folder / name).exists() for name in ("metrics.json", "error.txt")):
                report_failure(job_folder, complete, RuntimeError("the run ended without a result"))
    finally:
        print(f"\n{leaderboard.write(folder)}\n{folder}")
    return 0 if not failed and all((job_folder / "metrics.json").exists() for _, _, job_folder in jobs) else 1


def one_device(devices: Any) -> Any:
    """What `trainer.devices` means in a sweep: Lightning would start more processes by the sweep's own command."""
    if devices == "auto":
        return 1
    if devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1):
        return devices
    raise ValueError(f"trainer: devices={devices!r}, but a run of a sweep has one device; leave it auto, or drop -m")


def launch(jobs: Sequence[Job], hydra_overrides: list[str], folder: Path) -> None:
    """Hand complete jobs to the launcher that the configuration names: Hydra's basic one, joblib, submitit."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    def work(_: Any) -> bool:
        config, overrides, job_folder = job = jobs[HydraConfig.get().job.num]
        job_folder.mkdir(parents=True)
        print(f"\n[{HydraConfig.get().job.num + 1}/{len(jobs)}] {' '.join(overrides)}", flush=True)
        try:
            execute(job)
        except Exception as error:
            if config["debug"] or _unexpected(error):
                traceback.print_exc()
            report_failure(job_folder, overrides, error)
            return False
        return True

    # the jobs are composed and checked already: Hydra is told where they go, and nothing else
    places = [f"hydra.sweep.dir={_quoted(folder)}", "hydra.sweep.subdir=."]
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    config = hydra.compose_config("config", [*hydra_overrides, *places], run_mode=RunMode.MULTIRUN)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=work, config=config)
    launcher.launch([[] for _ in jobs], initial_job_idx=0)


def report_failure(folder: Path, overrides: Sequence[str], error: Exception) -> None:
    """Say at once that a job failed, and leave the reason in its folder for the table."""
    from bbframe.run.record import write_failure

    write_failure(folder, list(overrides), str(error) or type(error).__name__)
    print(f"FAILED {' '.join(overrides)}\n  {error}", file=sys.stderr, flush=True)


# composing


_secrets: set[str] = set()  # values of environment variables that are called a token, a key or the like


@contextmanager
def composition(extra: Path | None = None) -> Iterator[Callable[[list[str]], Any]]:
    """A function that composes the configuration for some overrides; `extra` is a folder of the user's own groups."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    if extra is not None and not extra.is_dir():
        raise ValueError(f"--config-dir {extra}: no such folder")
    OmegaConf.register_new_resolver("oc.env", _environment_variable, replace=True)
    GlobalHydra.instance().clear()
    paths = [f"file://{HOME}", *([f"file://{extra.resolve()}"] if extra else [])]  # recipes/ lies beside conf/
    with initialize_config_dir(str(HOME / "conf"), version_base="1.3"):
        place = f"hydra.searchpath=[{','.join(map(_quoted, paths))}]"
        yield lambda overrides: compose("config", [*overrides, place], return_hydra_config=True)


def configuration(compose: Callable[[list[str]], Any], overrides: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The plain data that some overrides compose to, and the overrides in full.

    `rerun` and `ckpt_path` bring a recorded configuration, of a run folder or inside a checkpoint. What the given
    overrides change, and nothing else, is changed in it.
    """
    values = {_key(o): o.partition("=")[2].strip("'\"") for o in overrides}
    source = next((values[k] for k in ("rerun", "ckpt_path") if values.get(k) not in (None, "", "null")), None)
    if source is None:
        return plain(compose, overrides), overrides
    from bbframe.run.masking import masked_keys
    from bbframe.run.record import read_record

    recorded, old = read_record(Path(source))
    new = [o for o in overrides if _key(o) != "rerun"]
    config = recorded
    if new:
        replaced = {_key(o) for o in new}
        kept = [o for o in old if not any(_key(o) == k or _key(o).startswith(f"{k}.") for k in replaced)]
        before, after = plain(compose, old), plain(compose, [*kept, *new])
        config = {key: changed(recorded.get(key), before.get(key), after[key]) for key in after}
        old = kept
    config["rerun"] = values.get("rerun")
    if hidden := masked_keys(config):
        raise ValueError(f"{source}: {hidden[0]} was masked in the record; give it again: {hidden[0]}=...")
    return config, [*old, *new]


def every_choice(compose: Callable[[list[str]], Any], group: str, names: Sequence[str]) -> dict[str, Any]:
    """What each of a group's files composes to, or the ValueError that says what is wrong with it.

    All are composed at once, many times quicker than one by one; those that do not compose are found by halving.
    """
    if len(names) < 2:
        try:
            return {name: plain(compose, [f"{group}={_quoted(name)}"])[group] for name in names}
        except ValueError as error:
            return {names[0]: error}
    packages = [f"+{group}@every_choice.n{i}={_quoted(name)}" for i, name in enumerate(names)]
    try:
        return dict(zip(names, plain(compose, packages)["every_choice"].values(), strict=True))
    except ValueError:
        half = len(names) // 2
        return {**every_choice(compose, group, names[:half]), **every_choice(compose, group, names[half:])}


def changed(record: Any, before: Any, after: Any) -> Any:
    """`record` with every difference between `before` and `after` applied; another choice of a group replaces it."""
    if before == after:
        return record
    if not all(isinstance(x, dict) for x in (record, before, after)):
        return after
    if any(before.get(kind) != after.get(kind) for kind in ("name", "model_type")):
        return after
    merged = {key: changed(record.get(key), before.get(key), after[key]) for key in after}
    return {**record, **merged}


def plain(compose: Callable[[list[str]], Any], overrides: list[str]) -> dict[str, Any]:
    """Compose, resolve, and turn every error of Hydra's into one line with what, where and the nearest fix."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        config = compose(overrides)
        ours = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
        data: dict[str, Any] = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)  # type: ignore
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_explained(compose, overrides, error)) from error
    except YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("the defaults of a file lead back to itself") from error
    if data.get("backbone_name") is None:
        data["backbone_name"] = config.hydra.runtime.choices.get("backbone")
    return data


def _explained(compose: Callable[[list[str]], Any], overrides: list[str], error: Exception) -> str:
    from hydra.errors import OverrideParseException

    from bbframe.schema import nearest

    text = str(error)
    if missing := re.search(r"(?:In '([^']+)': )?Could not (?:find|load) '([^']+)/([^/']+)'", text):
        file, group, choice = missing.groups()
        where = f"{file}.yaml: " if file not in (None, "config") else ""
        known = getattr(error, "options", None) or choices().get(group, ())
        return f"{where}{group}={choice}: the group {group!r} has no such file{nearest(choice, known)}"
    if key := re.search(r"Could not (?:override|delete) '([^'@=]+)", text):
        others = [o for o in overrides if _key(o) != key.group(1)]
        if len(others) < len(overrides):  # else it stands in a file, which the text names
            return _unknown_key(compose, others, key.group(1))
    if swept := re.search(r"Ambiguous value for argument '(.*)'", text):
        return f"{swept.group(1)} names several values; add -m to run each, or write a list as [a,b]"
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    return " ".join(text.split())


def _unreadable(error: Any) -> str:
    return f"{error.override!r} cannot be read ({str(error).splitlines()[0]}); in the shell quote it: 'key=[1,2]'"


def _unknown_key(compose: Callable[[list[str]], Any], overrides: list[str], key: str) -> str:
    from bbframe.schema import nearest

    node: Any = plain(compose, overrides)
    *parents, last = key.split(".")
    if not parents:
        return f"unknown key or group {key!r}{nearest(key, [*node, *choices()])}"
    for depth, parent in enumerate(parents):
        if not isinstance(node, Mapping) or parent not in node:
            where = ".".join(parents[:depth]) or "configuration"
            if node == {}:
                return f"{where}: has no {parent!r} yet; add it by a plus sign: +{key}=..."
            return f"{where}: unknown group {parent!r}{nearest(parent, node if isinstance(node, Mapping) else [])}"
        node = node[parent]
    where = node.get("model_type", ".".join(parents)) if isinstance(node, Mapping) else ".".join(parents)
    return f"{where}: unknown option {last!r}{nearest(last, node if isinstance(node, Mapping) else [])}"


def swept(compose: Callable[[list[str]], Any], overrides: list[str], multirun: bool) -> list[str] | None:
    """What a recipe sweeps (`hydra.sweeper.params`), less what is given; None when this is a single run.

    It is a sweep with -m, and with a recipe that says `hydra.mode: MULTIRUN`.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        hydra = compose([o.input_line or "" for o in parsed if not o.is_sweep_override()]).hydra
    except (HydraException, OmegaConfBaseException, YAMLError, RecursionError):
        return [] if multirun else None  # composing the runs says what is wrong
    if not multirun and str(hydra.mode).rpartition(".")[2] != "MULTIRUN":
        return None
    given = {_key(o) for o in overrides}
    return [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items() if key not in given]


def expand(overrides: list[str]) -> list[list[str]]:
    """Every combination of the values that the overrides list; `a=1,2` has two, `a=[1,2]` is one."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{error.override!r} cannot be read ({reason}); in the shell quote it: 'key=[1,2]'"
        ) from error
    choices = []
    for override in parsed:
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line or ""])
    return [list(combination) for combination in itertools.product(*choices)]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _quoted(value: object) -> str:
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _environment_variable(key: str, *default: Any) -> Any:
    """OmegaConf's `oc.env`, which also takes note of what is secret, so that no record shows it."""
    from bbframe.run.masking import is_secret

    if key not in os.environ:
        if not default:
            raise ValueError(f"the configuration reads the environment variable {key}, which is not set")
        return default[0]
    if is_secret(key):
        _secrets.add(os.environ[key])
    return os.environ[key]


# talking


def shown(config: dict[str, Any]) -> str:
    """A configuration as YAML, its secrets masked."""
    from bbframe.files import dump_yaml
    from bbframe.run.masking import mask_secrets

    return dump_yaml(mask_secrets(config, _secrets)).rstrip()


def explain(error: Exception, arguments: Sequence[str]) -> int:
    """Print an error: one line for what the user can mend, a traceback for anything else or on request."""
    if _unexpected(error) or "debug=true" in map(str.lower, arguments):
        traceback.print_exception(error)
    print(f"error: {error}", file=sys.stderr)
    return 1


def _unexpected(error: Exception) -> bool:
    """Whether an error deserves a traceback: what the user can mend is a ValueError, and needs none."""
    return not isinstance(error, ValueError) or os.environ.get("HYDRA_FULL_ERROR") == "1"


def choices(extra: Path | None = None) -> dict[str, list[str]]:
    """The config groups and what each offers, read off the file names; `extra` is a folder with more of them."""
    places = [HOME / "conf", *([extra] if extra else [])]
    folders = [*(p for place in places for p in sorted(place.iterdir()) if p.is_dir()), HOME / "recipes"]
    names: dict[str, set[str]] = {}
    for folder in folders:
        names.setdefault(folder.name, set()).update(file.stem for file in folder.glob("*.yaml"))
    return {group: sorted(found) for group, found in names.items()}


def usage() -> str:
    """The help: groups, main keys and examples, without importing anything."""
    lines = [
        "Train any vision backbone on your images.",
        "",
        "usage: python train.py [-m] [group=choice] [key=value] ...",
    ]
    lines += ["", "groups (choose one of each):"]
    for group, offered in choices().items():
        text = f"  {group:<9}"
        for choice in offered:
            if len(text) - text.rfind("\n") + len(choice) > 110:
                text += "\n           "
            text += f" {choice}"
        lines.append(text)
    lines += ["", "main keys:"]
    for line in (HOME / "conf" / "config.yaml").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"(\w+): *(\S.*?) +# (.*)", line):
            lines.append(f"  {match[1] + '=' + match[2]:<22} {match[3]}")
    lines += [
        "  backbone.out_indices   which maps: [1,3]; or backbone.out_features=[stage1], backbone.out_strides=[8,16]",
        "  backbone.pretrained    true loads backbone.checkpoint: an id on the Hub, a folder or a file",
        "  trainer.max_epochs     data.root, optim.lr, task.freeze, ...: --cfg job shows every key and its value",
        "",
        "flags:",
        "  -m                     run every combination of values such as seed=1,2 and compare them in one table",
        "  --cfg job              show the configuration and stop",
        "  --config-dir FOLDER    a folder with groups of your own, laid out like conf/",
        "",
        "examples:",
        "  python train.py backbone=convnextv2 backbone.out_indices=[1,3]",
        "  python train.py backbone=resnet50 backbone.pretrained=true data=image_folder data.root=photos",
        "  python train.py -m backbone=resnet18,convnextv2_atto,dinov2_small seed=1,2",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
