"""Errors of composition in one line: what, where, the nearest fix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hydra.errors import OverrideParseException

from bbframe.app.command_line import key_of, parsed_value, quoted
from bbframe.app.hydra_settings import choices, setting_names
from bbframe.schema import nearest

PlainCompose = Callable[[list[str]], Any]

# extras that bring launchers
LAUNCHERS = {
    "joblib": "bbframe[joblib]",
    "ray": "bbframe[ray]",
    "submitit_local": "bbframe[submitit]",
    "submitit_slurm": "bbframe[submitit]",
}
# what other programs call an option
USUAL_NAMES = {
    "trainer.max_epochs": "epoch epochs num_epochs n_epochs num_train_epochs max_epoch",
    "optim.lr": "learning_rate lr0 base_lr",
    "data.batch_size": "batch bs batchsize train_batch_size per_device_train_batch_size",
    "data.num_workers": "workers num_worker dataloader_num_workers",
    "data.image_size": "img_size imgsz image_sizes input_size resolution size",
    "data.root": "data_dir data_path dataset_path train_dir folder images",
    "backbone": "model arch architecture net network encoder model_name",
    "backbone.checkpoint": "weights weight pretrained_weights checkpoint_path model_path",
    "backbone.drop_path_rate": "drop_path",
    "data": "dataset datasets",
    "optim": "optimizer optimiser opt",
    "optim.weight_decay": "wd",
    "schedule": "scheduler lr_scheduler sched",
    "schedule.warmup_epochs": "warmup",
    "recipes": "recipe experiment",
    "ckpt_path": "resume_from ckpt checkpoint resume_from_checkpoint",
    "trainer.devices": "gpus gpu device ngpus num_gpus",
    "trainer.precision": "amp fp16 bf16 mixed_precision dtype",
    "trainer.gradient_clip_val": "clip_grad grad_clip max_grad_norm",
    "trainer.accumulate_grad_batches": "gradient_accumulation_steps accumulate grad_accum",
    "trainer.early_stopping": "patience",
    "trainer.ema_decay": "ema model_ema",
    "output_dir": "out output outdir save_dir run_dir log_dir work_dir project",
    "seed": "random_seed manual_seed",
}


def explained(compose: PlainCompose, overrides: list[str], error: Exception) -> str:
    """What an error of composition means, in one line: what, where, the nearest fix.

    `compose` gives the plain data that other overrides compose to.
    """
    text = str(error) or str(error.__cause__ or "")
    if isinstance(error, RecursionError):
        return "the defaults of a file lead back to itself"
    if missing := re.search(r"(?:In '([^']+)': )?Could not (?:find|load) '([^']+)/([^/']+)'", text):
        file, group, choice = missing.groups()
        where = f"{file}.yaml: " if file not in (None, "config") else ""
        if group == "hydra/launcher" and choice in LAUNCHERS:
            return f"{group}={choice} needs a package that is not installed: pip install '{LAUNCHERS[choice]}'"
        known = getattr(error, "options", None) or choices().get(str(group), [])
        return f"{where}{group}={choice}: the group {group!r} has no such file{nearest(choice, known)}"
    if "Config group override must be a string or a list" in text:
        group = next((key_of(o) for o in overrides if key_of(o) in choices() and o.endswith("=null")), "group")
        return f"{group}=null names no choice; give one, or for none at all {group}=[]"
    if primary := re.search(r"Cannot find primary config '([^']+)'", text):
        return f"--config-name {primary[1]}: no such file in conf/, --config-path or --config-dir"
    if key := re.search(r"Could not (?:override|delete) '([^'@=]+)", text):
        others = [o for o in overrides if key_of(o) != key.group(1)]
        if len(others) < len(overrides):  # else it stands in a file, which the text names
            given = next((parsed_value(o) for o in overrides if key_of(o) == key.group(1)), None)
            return _unknown_key(compose, others, key.group(1), given.value() if given else None)
    if "invalid literal for int()" in text and (place := _place_in_list(compose, overrides)):
        return place
    if lost := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{lost[1]}=... must be given"
    if swept := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '([^\n]*)'", text):
        name, _, value = swept.group(1).partition("=")
        return (
            f"{swept.group(1)} names several values; add -m to run each, or write a list as [a,b], "
            f'or quote one text: "{name}={quoted(value)}"'
        )
    if isinstance(error, OverrideParseException):
        return unreadable(error)
    return " ".join(text.split())


def unreadable(error: OverrideParseException) -> str:
    """What to type in the place of an override that Hydra's grammar cannot read."""
    key, _, value = str(error.override).partition("=")
    reason = str(error).splitlines()[0]
    if value[:1] in ("[", "{"):
        return f"{error.override!r} cannot be read ({reason}); in the shell quote it: 'key=[1,2]'"
    return f'{error.override!r} cannot be read ({reason}); quote the value: "{key}={quoted(value)}"'


def _place_in_list(compose: PlainCompose, overrides: list[str]) -> str | None:
    """What to type for the override of a place in a list that is no number."""
    for key in map(key_of, overrides):
        parent, _, last = key.rpartition(".")
        if parent and not last.isdecimal():
            node: Any = compose([override for override in overrides if key_of(override) != key])
            for part in parent.split("."):
                node = node.get(part) if isinstance(node, Mapping) else None
            if isinstance(node, list):
                return f"{parent} is a list, without {last!r}; give it whole: {parent}=[...]"
    return None


def _unknown_key(compose: PlainCompose, overrides: list[str], key: str, given: Any = None) -> str:
    """What is wrong with a key, or with one inside the mapping that it is given."""
    if key.startswith(("hydra.launcher.", "hydra.job.env_set.")):
        return f"{key.rpartition('.')[0]}: has no {key.rpartition('.')[2]!r} yet; add it by a plus sign: +{key}=..."
    if key.startswith("hydra."):
        return f"Hydra has no setting {key!r}{nearest(key, setting_names())}"
    node: Any = compose(overrides)
    if key in _keys(node):
        known: Any = node
        for part in key.split("."):
            known = known[part]
        key += "." + next((str(inner) for inner in given or () if inner not in (known or {})), "KEY")
    *parents, last = key.split(".")
    if better := _meant(node, key):
        where = f"unknown key or group {key!r}" if not parents else f"unknown option {key!r}"
        return f"{where}; did you mean {better}=...?"
    if not parents:
        return f"unknown key or group {key!r}{nearest(key, [*node, *choices()])}"
    for depth, parent in enumerate(parents):
        if node == {}:
            where = ".".join(parents[:depth])
            return f"{where}: has no {parent!r} yet; add it by a plus sign: +{key}=..."
        inside = node if isinstance(node, Mapping) else {}
        if parent not in inside:
            where = ".".join(parents[:depth]) or "configuration"
            return f"{where}: unknown group {parent!r}{nearest(parent, inside)}"
        node = inside[parent]
    if node in (None, {}):
        return f"{'.'.join(parents)}: has no {last!r} yet; add it by a plus sign: +{key}=..."
    inside = node if isinstance(node, Mapping) else {}
    return f"{inside.get('model_type', '.'.join(parents))}: unknown option {last!r}{nearest(last, inside)}"


def _meant(config: Mapping[str, Any], key: str) -> str | None:
    """The key of the configuration that has the same last word, or that another program calls by this name."""
    *parents, last = key.split(".")
    if parents and (parents[0] in config or "did you mean" in nearest(parents[0], config)):
        return None  # the group is right, or nearly so
    known = set(_keys(config))
    same = [name for name in known if name.rpartition(".")[2] == last and name != key]
    if len(same) == 1:
        return same[0]
    usual = {word: name for name, words in USUAL_NAMES.items() for word in words.split()}
    moved = ".".join([usual.get(key.partition(".")[0], ""), *key.split(".")[1:]])
    return next((name for name in (usual.get(last), moved) if name in known or name in choices()), None)


def _keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
