"""What a test does with a command line of a page, and by which overrides it makes a long training short."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from torch.distributed.run import get_args_parser

from bbframe.app import cli, train
from docs.rooms import ROOT

# Appended to every training that a page starts, unless the line says otherwise: two batches of eight images an epoch.
SHORT = {
    "trainer.max_epochs": "1",
    "trainer.limit_train_batches": "2",
    "trainer.limit_val_batches": "1",
    "trainer.limit_test_batches": "1",
    "trainer.accelerator": "cpu",
    "data.batch_size": "8",
}
# Appended where the data are a folder of photographs: small images, loaded by the process itself.
SMALL_IMAGES = {
    "image_folder": {"data.image_size": "64", "data.num_workers": "0"},
    "coco": {"data.min_size": "64", "data.max_size": "96", "data.num_workers": "0"},
    "voc": {"data.min_size": "64", "data.max_size": "96", "data.num_workers": "0"},
    "digit_scenes": {"data.train_scenes": "16", "data.val_scenes": "8", "data.test_scenes": "8"},
}
# Appended to a training of boxes: an untrained detector finds many, and each is drawn.
FEW_BOXES = {"head.detections_per_image": "5"}
# The recipes of the pages that are for boxes, and the data that they choose.
BOX_RECIPES = {"recipes=two_things": "coco"}
# Appended to `bbframe rank`: few images, and a race of two that ends at once.
SHORT_RANK = {"images": "24", "image_size": "64", "finalists": "2", "budget": "20s"}
# Put in the place of what a page says.
REPLACED = {"hydra.sweeper.trials": "2", "trainer.max_epochs": "2"}
# Taken as typed: these repeat or describe what is there already.
AS_TYPED = re.compile(r"^(rerun|ckpt_path|resume|train)=|^--(help|cfg|info|version)\b|^-h$")
# Not run by any test, and why; each is composed all the same.
NOT_RUN = {
    "hydra/launcher=submitit_slurm": "it needs a cluster",
    "hydra/launcher=ray": "it needs a cluster; tests/app/test_ray_cluster.py brings one up",
    "hydra/launcher=joblib": "it needs the extra joblib; tests/app/test_launchers.py runs it",
    "repo=anna/flowers": "it needs the Hub; tests/app/test_push_command.py runs it against one on the loopback",
    "serve": "it needs the extra serve, and does not end; tests/app/test_serve_command.py runs it",
    "torchrun": "it starts several processes; tests/pages/test_machines.py runs it",
    "ckpt_path=last": "tests/pages/test_machines.py runs it, twice",
    "trainer.precision=bf16-mixed": "some processors are slow at it; tests/run runs it",
}
# What a command needs that is not installed with bbframe: a word of it, the module, and the marker of tests with it.
EXTRAS = {
    "format=onnx": ("onnxruntime", "onnx"),
    "format=openvino": ("openvino", "onnx"),
    "quantize=int8": ("onnxruntime", "onnx"),
    ".onnx": ("onnxruntime", "onnx"),
    "onnxruntime": ("onnxruntime", "onnx"),
    ".parquet": ("pyarrow", "slow"),
}


def is_training(words: Sequence[str]) -> bool:
    return list(words[:2]) in (["python", "train.py"], ["bbframe", "train"])


def without_torchrun(words: Sequence[str]) -> list[str]:
    """The training that torchrun starts; other commands as they are."""
    return ["python", *words[words.index("train.py") :]] if words[0] == "torchrun" else list(words)


def overrides_of(words: Sequence[str]) -> list[str] | None:
    """What a training is composed of; None when it has no overrides, or needs what a page's folder alone has."""
    needs_page = re.compile(r"<|^--(help|cfg|info|version|plugin|config-dir)$|^ckpt_path=|=(tag|choice|interval)\(")
    if any(needs_page.search(word) for word in words):
        return None
    return [word for word in words[2:] if not word.startswith(("-", "hydra", "+hydra"))]


def shortened(words: Sequence[str]) -> list[str]:
    """The arguments of a training or a ranking with what makes it short."""
    arguments = [
        f"{key}={REPLACED[key]}" if (key := word.partition("=")[0]) in REPLACED else word for word in words[2:]
    ]
    if any(AS_TYPED.search(word) for word in arguments):
        return arguments
    given = {word.partition("=")[0] for word in arguments}
    ranks = words[1] == "rank"
    more = dict(SHORT if not ranks else SHORT | SHORT_RANK)
    boxes = bool({"task=detection", *BOX_RECIPES} & set(arguments))
    names = [word.partition("=")[2] for word in arguments if word.startswith("data=")]
    data = names[0] if names else next((BOX_RECIPES[word] for word in arguments if word in BOX_RECIPES), None)
    more |= SMALL_IMAGES.get(data or ("digit_scenes" if boxes else "digits"), {})
    if boxes and not ranks:
        more |= FEW_BOXES
    if ranks:
        more.pop("data.image_size", None)
        if data == "coco":  # whose images have a shorter and a longer side
            del more["image_size"]
    return [*arguments, *(f"{key}={value}" for key, value in more.items() if key not in given)]


def why_not_run(words: Sequence[str]) -> str | None:
    """Why no test runs a command; None when one does."""
    return next((why for word, why in NOT_RUN.items() if word in words), None)


def extra_of(text: str) -> tuple[str, str] | None:
    """The module that a block needs besides bbframe's own, and the marker of its test."""
    return next((extra for word, extra in EXTRAS.items() if word in text), None)


def check(words: Sequence[str]) -> None:
    """Look a command up that nothing is gained by running: a target, a module, an extra that must exist."""
    first, rest = words[0], list(words[1:])
    if first == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert rest[0] in targets, f"make has no target {rest}"
    elif first == "pip":
        known = re.findall(r"^([a-z]+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
        named = re.findall(r"\[([\w,]+)\]", " ".join(rest))
        assert rest[0] == "install", rest
        assert {extra for group in named for extra in group.split(",")} <= set(known)
    elif rest[:1] == ["-m"]:
        assert (ROOT / f"{rest[1].replace('.', '/')}.py").is_file(), f"no module {rest[1]}"
    elif first == "torchrun":
        parsed = get_args_parser().parse_args(rest)
        assert parsed.training_script == "train.py", rest
    elif first == "ray":
        assert rest[0] == "start", rest
    elif first == "python":
        assert (ROOT / rest[0]).is_file(), f"no file {rest[0]}"
    elif first != "source":
        raise AssertionError(f"a command of an unknown kind: {' '.join(words)}")


def is_ours(words: Sequence[str], written: Collection[str]) -> bool:
    """Whether a test runs the command, rather than look it up; `written` are the files that its page holds."""
    return is_training(words) or words[0] in ("bbframe", "pytest") or words[1] in written


def run(words: Sequence[str], monkeypatch, *, as_typed: bool = False) -> int:
    """Run a command of ours in this process, shortened unless it is to run as typed; its exit code."""
    if is_training(words):
        return train.main(list(words[2:]) if as_typed else shortened(words))
    if words[0] in ("pytest", "python"):
        first = ["-m", "pytest", "-p", "no:cacheprovider"] if words[0] == "pytest" else []
        command = [sys.executable, *first, *words[1:]]
        found = os.pathsep.join([str(ROOT), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": found}).returncode
    arguments = ["rank", *shortened(words)] if words[1:2] == ["rank"] else list(words[1:])
    monkeypatch.setattr(sys, "argv", ["bbframe", *arguments])
    return cli.main()
