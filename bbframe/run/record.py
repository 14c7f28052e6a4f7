"""The record of a run: its configuration, code and machine, written so that the run can be repeated.

A run folder holds config.yaml (resolved, secrets masked), overrides.yaml and environment.json. A checkpoint carries
the same configuration under the key "bbframe", so a run can be repeated from a checkpoint file alone.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import platform
import re
import subprocess
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bbframe.files import dump_yaml, write_text
from bbframe.registry import plugins
from bbframe.run.checkpoint import load_checkpoint
from bbframe.run.checkpoint_paths import is_checkpoint
from bbframe.run.folder_record import read_folder_record
from bbframe.run.masking import mask_overrides, mask_secrets, outward

PACKAGES = "bbframe torch torchvision timm lightning huggingface_hub safetensors torchmetrics".split()


def write_configuration(folder: Path, config: dict[str, Any]) -> None:
    """Write config.yaml, masked by its keys, into a run folder."""
    write_text(folder / "config.yaml", dump_yaml(mask_secrets(config)))


def write_record(folder: Path, config: dict[str, Any], overrides: list[str], environment: dict[str, Any]) -> None:
    """Write config.yaml, overrides.yaml (both masked by their keys) and environment.json into a run folder."""
    write_configuration(folder, config)
    write_text(folder / "overrides.yaml", dump_yaml(mask_overrides(overrides)))
    write_text(folder / "environment.json", json.dumps(mask_secrets(environment), indent=2) + "\n")


def write_failure(folder: Path, overrides: list[str], reason: str) -> None:
    """Write the reason why a run failed, and its overrides, into its folder, which is made when it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "error.txt", outward(reason) + "\n")
    if not (folder / "overrides.yaml").exists():
        write_text(folder / "overrides.yaml", dump_yaml(mask_overrides(overrides)))


def read_record(source: Path) -> tuple[dict[str, Any], list[str]]:
    """The configuration and the overrides of a run, from its folder or from one of its checkpoint files.

    Secrets are "***" in it: `masked_keys` says which. Raises ValueError that names the file and what is wrong with it.
    """
    if is_checkpoint(source):
        run = load_checkpoint(source).run
        return copy.deepcopy((run.config, run.overrides))  # a caller changes its own
    return read_folder_record(source)


def read_plugins(source: Path) -> list[dict[str, Any]]:
    """The plugins of a run, as `registry.Plugin` names them, from its folder or from one of its checkpoint files."""
    file = source if is_checkpoint(source) else source / "environment.json"
    try:
        if is_checkpoint(source):
            found = load_checkpoint(source).run.plugins
        else:
            found = json.loads(file.read_text(encoding="utf-8")).get("plugins", []) if file.is_file() else []
        return [{"module": str(plugin["module"]), "sha256": plugin.get("sha256")} for plugin in found]
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file}: does not name its plugins as a record does: {error}") from error


def environment(seed: int, weights: dict[str, Any] | None) -> dict[str, Any]:
    """Code, versions and hardware of this run, as plain data; nothing in it names the user or the machine.

    `weights` says where pretrained weights came from (revision, sha256), None without them.
    """
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seed": seed,
        "git": _git(Path(__file__).resolve().parents[2]),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "hardware": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
            "torch_threads": torch.get_num_threads(),
        },
        "weights": weights,
        "plugins": [dataclasses.asdict(plugin) for plugin in plugins()],
    }


def _git(root: Path) -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout at `root`; None for an installed package or without git."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}  # a hook sets GIT_DIR

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": git("status", "--porcelain") != ""}
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """What the processor of this machine is called."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()
