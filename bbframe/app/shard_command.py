"""`bbframe data shard`: the images of a configuration as a few large files."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bbframe.schema import checked_value

SHARD_HELP = """A data set as a few large files, which disks and servers give out faster than many small ones.

usage: bbframe data shard --out FOLDER [--shard-size 256MB] [--workers N] [--masks] [group=choice] [key=value] ...

Arguments are those of `bbframe train`; what counts is data. All parts are written as a training has them: its split,
its exclusions, its skipped files. `data.shards=FOLDER` then takes the place of data.root or of the annotation files,
and gives the same batches, metrics and predictions:

  FOLDER/shards.json       the classes, and the size and SHA-256 of every file
  FOLDER/train-000000.tar  for each image 000000042.jpg, the file as it is, and 000000042.json, what it shows: name,
                           label and class, or its objects with box, label, class, crowd, area and mask (COCO's
                           compressed run lengths). Pixels that have no file become a PNG. WebDataset reads them too
  FOLDER/train.npz         where each image lies, in the order of the source

Training images are mixed once, so that a few shards show all classes. The same images give the same bytes. A folder in
which this command was interrupted is completed by the same command; until shards.json is there it is no set.

flags:
  --out FOLDER              a new folder
  --shard-size 256MB        of a tar, about; MB, GB or TB
  --workers N               processes that read and write; as many as there are cores, up to 8, unless said
  --seed N                  another one mixes the training images otherwise; 0 unless said
  --masks                   write the masks of objects too; done unasked for a head with masks, such as mask_rcnn
  --format litdata          litdata's chunks instead of tars; needs the extra litdata
  --json                    what was written, as plain data
  --config-dir FOLDER       a folder with groups of your own, laid out like conf/
  --plugin MODULE           a Python module with parts of your own

examples:
  bbframe data shard data=image_folder data.root=photos --out photos-shards
  bbframe data shard data=coco data.train_images=images data.train_annotations=train.json --masks --out coco-shards
  python train.py data=image_folder data.shards=photos-shards
  python train.py data=image_folder data.shards=https://example.org/photos-shards data.shard_cache_size=20GB"""


def write_shard_set(arguments: Sequence[str]) -> int:
    """Write the shards that a command line asks for; returns the exit code."""
    own, rest = _read(list(arguments))

    from bbframe.app.data_command import composed_plan
    from bbframe.app.train import command_of
    from bbframe.data import make_data
    from bbframe.data.shards.shard_cache import bytes_of
    from bbframe.preprocessing import Preprocessing
    from bbframe.run.masking import outward

    command = command_of(rest)
    for flag in ("dry_run", "multirun", "cfg", "info"):
        if getattr(command, flag):
            raise ValueError(
                f"data shard has no --{flag.replace('_', '-')}; `bbframe data shard --help` shows its flags"
            )
    plan, _ = composed_plan(command)
    masks = own.masks or bool(plan.head.masks and plan.data.task == "detection")
    data = make_data(
        plan.data,
        seed=plan.run.seed,
        preprocessing=Preprocessing(),
        num_channels=plan.backbone.config.num_channels,
        stride=max(plan.backbone.config.strides),
        masks=masks,
    )
    out, name, started = Path(own.out).expanduser(), str(plan.data.name), time.monotonic()
    size = bytes_of(own.shard_size)
    if own.format == "litdata":
        from bbframe.data.shards.litdata_writer import write_litdata

        found = write_litdata(data, name, out, masks=masks, shard_bytes=size, seed=own.seed, tell=_tell)
    else:
        from bbframe.data.shards.shard_writer import write_shards

        found = write_shards(
            data, name, out, masks=masks, shard_bytes=size, seed=own.seed, workers=own.workers, tell=_tell
        )
    files = [entry for part in found.part_entries().values() for entry in part.entries()[1]]
    written = sum(entry.bytes for entry in files)
    told = {
        "folder": str(out),
        "images": dict(data.counts),
        "shards": len(files),
        "bytes": written,
        "id": found.id,
        "seconds": round(time.monotonic() - started, 1),
    }
    if own.json:
        print(outward(json.dumps(told, indent=2)))
        return 0
    counts = ", ".join(f"{count:,} {part}" for part, count in data.counts.items())
    print(outward(f"{counts} images in {len(files)} shards, {written / 10**6:,.1f} MB, {told['seconds']} s"))
    print(outward(f"{out}; train on it with data={name} data.shards={out}"))
    return 0


def _read(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The flags of the command itself, and what is Hydra's."""
    from bbframe.data.loading_options import ByteSize
    from bbframe.sweep.device_share import cores

    parser = argparse.ArgumentParser(
        prog="bbframe data shard", add_help=False, allow_abbrev=False, exit_on_error=False
    )
    parser.add_argument("--out")
    parser.add_argument("--shard-size", default="256MB")
    parser.add_argument("--workers", type=int, default=min(8, cores()))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=("webdataset", "litdata"), default="webdataset")
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--json", action="store_true")
    try:
        own, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(f"data shard: {error}; `bbframe data shard --help` shows its flags") from error
    if own.out is None:
        raise ValueError("data shard: --out must name a new folder, such as --out photos-shards")
    checked_value(own.shard_size, ByteSize, "data shard: --shard-size")
    for name, low, high in (("workers", 1, 256), ("seed", 0, 2**32 - 1)):
        if not low <= getattr(own, name) <= high:
            raise ValueError(f"data shard: --{name}={getattr(own, name)} must be an integer within {low}..{high}")
    return own, rest


def _tell(done: int, of: int) -> None:
    """The count of images written, on a terminal."""
    if sys.stderr.isatty():
        print(f"\rwrote {done:,} of {of:,} images", end="\n" if done == of else "", file=sys.stderr, flush=True)
