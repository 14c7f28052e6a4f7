"""The console command `bbframe`: train as `python train.py` does, list and describe backbones, predict."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bbframe.schema import nearest

HERE = Path(__file__).resolve().parents[1]

HELP = """Train any vision backbone on your images, and choose it.

usage: bbframe train [group=choice] [key=value] ...
       bbframe list [part of a name]
       bbframe info [group=choice] [key=value] ...
       bbframe predict run=<run folder> images=<folder or files> [key=value] ...

  train    what `python train.py` does
  list     all architectures and variants: parameters, stages, channels, strides, Hub id, timm's name
  info     one backbone: each stage's map, parameters and GMACs; memory and this machine's latency
  predict  labels or boxes for images, by a network that was trained: pictures, and a table

`bbframe <command> --help` shows all of it."""

LIST_HELP = """All architectures and variants, as a table.

usage: bbframe list [--json] [--config-dir FOLDER] [part of a name]

Each is a choice of the group `backbone`: what has "_tiny" in its name is listed by `bbframe list _tiny`.
Parameters are those of the backbone with its last stage, no classifier counted.

flags:
  --json                 as plain data, with every stage and the exact number of parameters
  --config-dir FOLDER    a folder with groups of your own, laid out like conf/

examples:
  bbframe list
  bbframe list convnext
  bbframe list --config-dir mine --json"""

INFO_HELP = """What a backbone is, and what it costs on this machine.

usage: bbframe info [--json] [--config-dir FOLDER] [group=choice] [key=value] ...

A table of its stages: which are selected and built, channels, stride, the map (C x H x W), parameters, GMACs of the
products and convolutions, and their sum so far. Then the peak memory of a forward pass and its time, the median of
several. It is one image in float32, of the size that a run with the same arguments has: data.image_size says another.
Weights are never loaded, so pretrained=true changes nothing. A GPU is used unless trainer.accelerator=cpu.
Arguments are those of `bbframe train`.

flags:
  --json                 as plain data
  --cfg job              show the configuration and stop
  --config-dir FOLDER    a folder with groups of your own, laid out like conf/

examples:
  bbframe info backbone=swin data.image_size=[480,640]
  bbframe info backbone=resnet50 backbone.out_strides=[8,16] data.image_size=224
  bbframe info backbone=timm backbone.name=efficientnet_b0 data.image_size=224"""


PREDICT_HELP = """What a trained network says about images: its classes, or the objects in them.

usage: bbframe predict run=<run folder> images=<folder or files> [key=value] ...

  run=...           a run folder, of which checkpoints/best.ckpt is taken, else last.ckpt; or a checkpoint file
  images=...        a folder and all that is below it, a file, a pattern such as 'photos/*.jpg', or several of these:
                    a,b or one word each
  out=...           the folder of the results; <run folder>/predictions unless said
  threshold=0.5     boxes with a score from here on are drawn
  batch_size=8      images at a time
  device=auto       or cpu, gpu
  overwrite=false   true replaces the results of an earlier prediction

Every image gets a picture of the same name, relative to the images' folder: with the surest classes below it, or with
boxes, scores and masks on it. Small images are enlarged for that. In a table beside the pictures stands

  for classification   predictions.csv: image, predicted class, its probability, and those of the next four
  for detection        predictions.json: COCO results with all boxes that the detector gives, also those below the
                       threshold, in pixels of the image; images.json: which images and categories the ids mean

An image that cannot be read is named and skipped. The exit code is 0 when there was one that could be read.

examples:
  bbframe predict run=outputs/classification/<run> images=photos
  bbframe predict run=outputs/detection/<run> images=street.jpg out=seen threshold=0.3"""


def main() -> int:
    """Run a sub-command; returns its exit code."""
    try:
        code = _run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # what reads the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run() -> int:
    command, *rest = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(HELP)
        return 0
    if command == "train":
        return train(rest)
    if command not in COMMANDS:
        forgotten = "=" in command or command.startswith("-")
        meant = "predict" if any(word.startswith("images=") for word in sys.argv[1:]) else "train"
        hint = f"; did you mean 'bbframe {' '.join([meant, *sys.argv[1:]])}'?" if forgotten else None
        print(f"error: no command {command!r}{hint or nearest(command, ['train', *COMMANDS])}", file=sys.stderr)
        return 1
    run, text = COMMANDS[command]
    if {"-h", "--help"} & set(rest):
        print(text)
        return 0
    entry = _entry()
    try:
        return run(entry, rest)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        return int(entry.explain(error, rest))


def train(arguments: list[str]) -> int:
    """Do what `python train.py` does, in this process, whose command line becomes that."""
    sys.argv = [str(_entry_file()), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 0  # it exits by itself


def _entry_file() -> Path:
    """The file train.py: in the wheel it lies in the package, in a checkout beside it."""
    return next(path for path in (HERE / "train.py", HERE.parent / "train.py") if path.is_file())


def _entry() -> Any:
    """train.py as a module, which composes configurations."""
    spec = importlib.util.spec_from_file_location("bbframe_train", _entry_file())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def list_backbones(entry: Any, arguments: list[str]) -> int:
    """Print the catalog; a file that describes no backbone is an error of one line, after the others."""
    parser = argparse.ArgumentParser(prog="bbframe list", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("part", nargs="?", default="")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--config-dir", "-cd", type=Path)
    try:
        command, foreign = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(f"{error}; bbframe list --help shows what there is") from error
    if foreign:
        raise ValueError(f"unknown argument {foreign[0]!r}; bbframe list --help shows what there is")

    from bbframe.app.catalog import line, listing

    with entry.composition(command.config_dir) as compose:
        choices = entry.choices(command.config_dir)["backbone"]
        chosen = [name for name in choices if command.part.lower() in name.lower()]
        if not chosen:
            raise ValueError(f"no backbone has {command.part!r} in its name{nearest(command.part, choices)}")
        composed = entry.every_choice(compose, "backbone", chosen)
    lines, wrong = [], []
    for choice, options in composed.items():
        try:
            if isinstance(options, ValueError):
                raise options
            lines.append(line(choice, options))
        except ValueError as error:
            homes = [entry.HOME / "conf", command.config_dir]
            file = next(path for home in homes if (path := home / "backbone" / f"{choice}.yaml").is_file())
            wrong.append(f"error: {file}: {str(error).removeprefix(f'backbone/{choice}.yaml: ')}")
    if lines or command.json:
        print(json.dumps(lines, indent=2) if command.json else listing(lines))
    print(*wrong, sep="\n", end="\n" * bool(wrong), file=sys.stderr)
    return 1 if wrong else 0


def info(entry: Any, arguments: list[str]) -> int:
    """Print what the backbone of a configuration is and costs."""
    command = entry.parse([argument for argument in arguments if argument != "--json"])
    with entry.composition(command.config_dir) as compose:
        axes = entry.swept(compose, command.overrides, command.multirun) or []
        several = [o for o in [*axes, *command.overrides] if len(entry.expand([o])) > 1]
        if several:
            raise ValueError(f"info describes one backbone; give one value of {' and of '.join(several)}")
        config, _ = entry.configuration(compose, command.overrides)
    if command.cfg:
        print(entry.shown(config))
        return 0

    from bbframe.app.catalog import describe, description

    facts = describe(config)
    print(json.dumps(facts, indent=2) if "--json" in arguments else description(facts))
    return 0


def predict(entry: Any, arguments: list[str]) -> int:
    """Predict as a command line of key=value says."""
    from bbframe.predict.predict_options import read_arguments
    from bbframe.predict.prediction import predict_images

    return predict_images(read_arguments(arguments))


COMMANDS: dict[str, tuple[Callable[[Any, list[str]], int], str]] = {
    "list": (list_backbones, LIST_HELP),
    "info": (info, INFO_HELP),
    "predict": (predict, PREDICT_HELP),
}
