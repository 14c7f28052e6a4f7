"""`bbframe report`: the page of a run, a sweep or a ranking again, from what is in its folder and still at hand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbframe.files import read_yaml
from bbframe.run.checkpoint_paths import is_checkpoint

if TYPE_CHECKING:
    from bbframe.data.data_module import DataModule
    from bbframe.predict.trained_network import TrainedNetwork


@dataclass(frozen=True)
class ReopenedRun:
    """The images and the network of a run that has ended, None where they are gone; `missing` says why."""

    data: DataModule | None
    network: TrainedNetwork | None
    missing: str


def report(arguments: Sequence[str]) -> int:
    """Make the page of each run or sweep folder that the command names, and print its path."""
    from bbframe.app.command_line import parsed_arguments
    from bbframe.app.execution import load_plugins
    from bbframe.run.masking import outward

    parser = argparse.ArgumentParser(prog="bbframe report", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("folders", nargs="*", metavar="folder")
    parser.add_argument("--plugin", action="append", default=[])
    command = parsed_arguments(parser, arguments, "bbframe report --help")
    if not command.folders:
        raise ValueError(
            "report: name the folder of a run, a sweep or a ranking, such as outputs/classification/<run>"
        )
    load_plugins(command.plugin)
    for folder in command.folders:
        print(outward(str(make_page(Path(folder).expanduser()))))
    return 0


def make_page(folder: Path) -> Path:
    """Make the page of a run, a sweep or a ranking, and return its path. Raises ValueError for any other folder."""
    from bbframe.report.page.run_page import write_run_page
    from bbframe.run.record import read_record
    from bbframe.sweep.job_results import is_sweep

    if (folder / "rank.json").is_file():
        from bbframe.report.page.rank_page import read_rank_page_data, write_rank_page

        return write_rank_page(folder, *read_rank_page_data(folder))
    if is_sweep(folder):
        from bbframe.sweep.leaderboard import write_report

        return write_report(folder)
    read_record(folder if not folder.is_file() else folder.parent)
    run = reopen(folder)
    return write_run_page(folder, run.data, None if run.network is None else run.network.task, run.missing)


def make_missing_pages(folders: Sequence[Path]) -> None:
    """Make the page of each finished run that was killed while it made its own; a failure is said in one line."""
    from bbframe.run.masking import outward

    for folder in folders:
        if (folder / "metrics.json").is_file() and not (folder / "report.html").exists():
            try:
                make_page(folder)
            except Exception as error:
                reason = " ".join(str(error).split())
                print(outward(f"{folder}: no page: {reason}; bbframe report {folder} makes it"), file=sys.stderr)


def reopen(folder: Path) -> ReopenedRun:
    """The images of the run in `folder`, and the network of its best checkpoint, else of its last one."""
    from bbframe.predict.trained_network import load_trained_network

    files = [folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
    checkpoint = next((file for file in files if is_checkpoint(file)), None)
    network, reasons = None, []
    if checkpoint is not None:
        try:
            network = load_trained_network(checkpoint)
        except (ValueError, OSError) as error:
            reasons.append(f"There are no heat maps: {error}.")
    else:
        reasons.append("There are no heat maps, because the run left no checkpoint.")
    try:
        data = _images(read_yaml(folder / "config.yaml", dict), network)
    except (ValueError, OSError) as error:
        reasons = [f"There are no photos: {error}."]  # and nothing to lay heat on
        data = None
    return ReopenedRun(data, network, " ".join(reasons))


def _images(config: dict[str, Any], network: TrainedNetwork | None) -> DataModule:
    """The data module of a run; without its network it serves to read the images, not to feed them to one."""
    from bbframe.data import make_data
    from bbframe.preprocessing import Preprocessing
    from bbframe.registry import parse_part

    data, head = parse_part("data", config.get("data"), "data"), parse_part("head", config.get("head"), "head")
    backbone = None if network is None else network.task.backbone
    return make_data(
        data,
        seed=int(config.get("seed", 0)),
        preprocessing=Preprocessing() if backbone is None else backbone.preprocessing,
        num_channels=3 if backbone is None else backbone.config.num_channels,
        stride=1 if backbone is None else max(backbone.strides),
        masks=head.masks,
    )
