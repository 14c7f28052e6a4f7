"""Runs that are killed at random moments and resumed, compared to the bit with the run that nothing disturbed.

    make kill                                 # 60 kills
    make kill ARGS="--kills 300 --seed 1"     # more, at other moments

Every row of the table is a training (a tiny ResNet or a tiny detector, three epochs) and a way to end it: a signal at
a random moment, from the reading of the configuration to the last picture, or SIGKILL at a random operation on a file.
What is left is resumed with ckpt_path=<run folder>, or rerun=<run folder> before its first checkpoint, some of it
killed again. Then weights, optimizer, best epoch, history, metrics and predictions are those of the undisturbed run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESNET = [
    *("backbone=resnet18", "backbone.depths=[1,1,1,1]", "backbone.hidden_sizes=[8,8,16,16]"),
    *("backbone.embedding_size=8", "optim.lr=0.01", "data.batch_size=64", "trainer.limit_train_batches=10"),
    *("trainer.max_epochs=3", "trainer.limit_val_batches=3", "trainer.limit_test_batches=2", "data.num_workers=0"),
]
EVERYTHING = [
    *("trainer.ema_decay=0.9", "trainer.accumulate_grad_batches=3", "data.num_workers=2", "data.augment.mixup=0.2"),
    *("trainer.early_stopping=1", "trainer.checkpoint_every=2", "trainer.keep=2"),
]
DETECTOR = [
    *("task=detection", "backbone=resnet18", "backbone.depths=[1,1,1,1]", "backbone.hidden_sizes=[8,8,16,16]"),
    *("backbone.embedding_size=8", "head.channels=32", "head.num_convs=1", "data.train_scenes=24"),
    *("data.val_scenes=6", "data.test_scenes=6", "data.image_size=[64,96]", "data.batch_size=4"),
    *("trainer.max_epochs=3", "data.num_workers=2", "trainer.ema_decay=0.9"),
]
FILES = "at each operation on a file"


@dataclass(frozen=True)
class Case:
    """A row of the table: a training, how it is ended (signals, or SIGKILL at an operation on a file), how often."""

    title: str
    options: Sequence[str]
    ends: Sequence[str]
    share: int
    again: float = 0.0  # how often a resumed run is ended too


CASES = [
    Case("SIGKILL at random moments, ResNet", RESNET, ["SIGKILL"], 5),
    Case("SIGKILL at each operation on a file, ResNet", RESNET, [FILES], 8),
    Case(
        "SIGKILL, EMA, accumulation, 2 workers, mixup, early stopping, checkpoint_every, killed again",
        [*RESNET, *EVERYTHING],
        ["SIGKILL", FILES],
        8,
        0.5,
    ),
    Case("SIGKILL, detection, 2 workers, EMA", DETECTOR, ["SIGKILL", FILES], 5),
    Case("SIGTERM, ResNet", RESNET, ["SIGTERM"], 6),
    Case("SIGTERM, everything on", [*RESNET, *EVERYTHING], ["SIGTERM"], 10, 0.3),
    Case("SIGINT, ResNet", RESNET, ["SIGINT"], 6),
    Case("SIGINT, everything on", [*RESNET, *EVERYTHING], ["SIGINT"], 6, 0.3),
    Case("SIGHUP, SIGTERM or SIGINT, detection", DETECTOR, ["SIGHUP", "SIGTERM", "SIGINT"], 6, 0.2),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 1 when a resumed run was not the undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="the cases whose title contains this")
    given = parser.parse_args(arguments)
    import bbframe.app.application  # once for all runs, which are forks of this process
    import bbframe.run.training_run
    import bbframe.sweep.leaderboard  # noqa: F401

    place, started = Path(tempfile.mkdtemp(prefix="bbframe-kill-")), time.monotonic()
    os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="agg")
    chosen = [case for case in CASES if given.only in case.title]
    total = sum(case.share for case in chosen)
    rows, lost = [], 0
    for case in chosen:
        draw = random.Random(f"{given.seed} {case.title}")
        kills = max(1, round(given.kills * case.share / total))
        exact, notes = Trial(place, case, draw).repeated(kills)
        lost += len(notes)
        rows.append(f"| {case.title} | {exact}/{exact + len(notes)} | {'; '.join(notes)} |")
        print(rows[-1], f"{time.monotonic() - started:.0f} s", flush=True)
    print("\n| killed by | exact | what is lost |\n|---|---|---|", *rows, sep="\n")
    print(f"\n{time.monotonic() - started:.0f} s, seed {given.seed}" + (f", runs in {place}" if lost else ""))
    if not lost:
        shutil.rmtree(place)
    return int(lost > 0)


class Trial:
    """The undisturbed run of a case, and those that are ended and resumed."""

    def __init__(self, place: Path, case: Case, draw: random.Random) -> None:
        self.case, self.draw = case, draw
        self.place = place / str(abs(hash(case.title)))
        self.place.mkdir(parents=True)
        self.whole = self.place / "whole"
        begun = time.monotonic()
        status, self.operations = start(self.case.options, self.whole, FILES, 10**9)
        if status:
            raise RuntimeError(f"{case.title}: the undisturbed run failed: {said(self.whole)}")
        self.seconds = time.monotonic() - begun

    def repeated(self, kills: int) -> tuple[int, list[str]]:
        """How many resumed runs were exact, and what was wrong with the others."""
        exact, notes = 0, []
        for number in range(kills):
            ended: list[str] = []
            try:
                wrong = difference(self.whole, self.one(self.place / f"{number}", ended))
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
            if wrong is None:
                exact += 1
                shutil.rmtree(self.place / f"{number}")
            else:
                notes.append(f"{number} ({', '.join(ended)}): {wrong}")
        return exact, notes

    def one(self, place: Path, ended: list[str]) -> Path:
        """End a run and resume it; its last folder."""
        place.mkdir()
        options, attempt = list(self.case.options), 0
        while True:
            folder, how, moment = place / f"run{attempt}", "", 0.0
            if attempt == 0 or (attempt < 4 and self.draw.random() < self.case.again):
                how = self.draw.choice(list(self.case.ends))
                moment = self.draw.random() * (self.operations if how == FILES else self.seconds)
                ended.append(f"{'SIGKILL' if how == FILES else how} at {moment:.2f}")
            status, _ = start(options, folder, how, moment)
            if (folder / "metrics.json").is_file():
                return folder
            if not how:
                raise RuntimeError(f"resumed, it ended with {status}: {said(folder)}")
            if (folder / "checkpoints" / "last.ckpt").is_file():
                options = [f"ckpt_path={folder}"]
            elif (folder / "config.yaml").is_file():
                options = [f"rerun={folder}"] if attempt == 0 else options
            attempt += 1


def said(folder: Path) -> str:
    """The last line that a run said."""
    output = folder.with_suffix(".log").read_text().strip().splitlines()
    return output[-1] if output else "nothing"


def start(options: Sequence[str], folder: Path, how: str, moment: float) -> tuple[int, int]:
    """Run a command in a fork of this process, and end it; its exit status, and the operations on files it did."""
    count = folder.with_suffix(".count")
    child = os.fork()
    if child == 0:
        run_in_child([*options, f"hydra.run.dir={folder}"], folder, count, int(moment) if how == FILES else 10**9)
    if how and how != FILES:
        time.sleep(moment)
        os.kill(child, getattr(signal, how))
    waited, deadline = 0, time.monotonic() + 180
    while waited == 0 and time.monotonic() < deadline:
        waited, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if waited == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise RuntimeError("it hung for 180 s")
    return os.waitstatus_to_exitcode(status), int(count.read_text()) if count.is_file() else 0


def run_in_child(arguments: list[str], folder: Path, count: Path, most: int) -> None:
    """Run a command, with SIGKILL at its operation number `most` on a file below the folder; never returns."""
    log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder.parent)
    done, below, me = 0, str(folder), os.getpid()

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal done
        if event not in ("open", "os.rename", "os.remove", "os.mkdir") or os.getpid() != me:
            return
        if str(args[0]).startswith(below):
            done += 1
            if done > most:
                os.kill(me, signal.SIGKILL)

    sys.addaudithook(watch)
    status = 1
    try:
        import torch

        from bbframe.app import train

        torch.set_num_threads(1)
        status = train.main(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        below = "\0"
        count.write_text(str(done))
        os._exit(status)


def difference(whole: Path, other: Path) -> str | None:
    """What a resumed run has other than the undisturbed one, None when they agree to the bit."""
    import torch

    for name in ("best.ckpt", "last.ckpt"):
        ours, theirs = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (whole, other))
        for key in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "current_model_state"):
            if not equal(ours.get(key), theirs.get(key)):
                return f"{name} has another {key}"
    ours, theirs = (json.loads((run / "metrics.json").read_text()) for run in (whole, other))
    for key in ("status", "val", "best_epoch", "test", "test_low", "epochs", "class_f1", "class_ap", "test_sha256"):
        if ours.get(key) != theirs.get(key):
            return f"metrics.json has {key}={theirs.get(key)}, not {ours.get(key)}"
    ours, theirs = (list(csv.DictReader((run / "metrics.csv").read_text().splitlines())) for run in (whole, other))
    if ours != theirs:
        return f"metrics.csv has {len(theirs)} rows, not {len(ours)}, or other values"
    names = [{str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()} for run in (whole, other)]
    if names[0] != names[1]:
        return f"other files: {sorted(names[0] ^ names[1])}"
    for name in sorted(names[0]):
        same = (whole / name).read_bytes() == (other / name).read_bytes()
        if name.startswith(("predictions", "backbone")) and not same:
            return f"{name} differs"
    return None


def equal(one: Any, other: Any) -> bool:
    """Whether two structures of tensors and plain values agree to the bit."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return bool((one == other).all()) if hasattr(one, "shape") else one == other


if __name__ == "__main__":
    sys.exit(main())
