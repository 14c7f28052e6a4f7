"""`bbframe data`: what the images of a configuration say before anything is trained."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bbframe.audit.data_audit import DataAudit
    from bbframe.backbone import Backbone
    from bbframe.data.data_module import DataModule
    from bbframe.run.configuration import Configuration

MOST_PHOTO_BYTES = 4_500_000  # of all photos in the page


@dataclass(frozen=True)
class _Asked:
    """The command line: where fixes are written to, whether to print JSON, and what Hydra composes."""

    out: Path | None
    as_json: bool
    rest: list[str]


def audit_images(arguments: list[str]) -> int:
    """Audit the data of a configuration: print a report, leave a page, and write the fixes if asked to."""
    from bbframe.app.train import command_of
    from bbframe.run.masking import mask_overrides, outward

    asked = _read(arguments)
    command = command_of(asked.rest)
    for flag in ("dry_run", "multirun", "cfg", "info"):
        if getattr(command, flag):
            raise ValueError(f"data has no --{flag.replace('_', '-')}; bbframe data --help shows what there is")
    plan, output = composed_plan(command)

    from bbframe.audit.audit_report import audit_text
    from bbframe.audit.findings import write_fixes

    net, features = _network(plan)
    data = _data(plan, net)
    stride = _finest_stride(plan, net)
    audit = _audited(data, net, features, stride)
    name = str(plan.data.name)
    kept = [o for o in command.overrides if not o.startswith("data.exclude")]  # the new file has the old one's rows
    words = shlex.join(mask_overrides(command.overrides))
    fixes = str(asked.out or "fixes.csv")
    plain = {
        **audit.plain(),
        "data": name,
        "command": f"bbframe data {words} --out {shlex.quote(fixes)}",
        "arguments": shlex.join(mask_overrides(kept)),
        "fixes": shlex.quote(fixes),
    }
    folder = _write(output, name, data, audit, plain)
    if asked.out is not None:
        try:
            write_fixes(asked.out, audit.findings, data.exclusion.fixes)
        except OSError as error:
            raise ValueError(
                f"--out {asked.out}: cannot be written ({error.strerror}); the page is in {folder}"
            ) from error
    if asked.as_json:
        print(outward(json.dumps({**plain, "folder": str(folder)}, indent=2)))
        return 0
    excluded = data.exclusion.told() if data.exclusion.file else ""
    print(outward(audit_text(name, audit, excluded)))
    print(outward(_fixes_line(asked.out, audit)))
    print(outward(f"page: {folder / 'report.html'}"))
    return 0


def _read(arguments: Sequence[str]) -> _Asked:
    from bbframe.app.command_line import parsed_arguments

    own, rest = [], list(arguments)
    if "--json" in rest:
        rest.remove("--json")
        own.append("--json")
    for place, word in enumerate(rest):
        if word == "--out" or word.startswith("--out="):
            taken = rest[place : place + (1 if "=" in word else 2)]
            own, rest = [*own, *taken], [*rest[:place], *rest[place + len(taken) :]]
            break
    parser = argparse.ArgumentParser(prog="bbframe data", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--out")
    parser.add_argument("--json", action="store_true")
    known = parsed_arguments(parser, own, "bbframe data --help")
    if known.out is None:
        return _Asked(None, known.json, rest)
    out = Path(known.out).expanduser()
    if out.suffix.lower() != ".csv":
        raise ValueError(f"--out {known.out}: must end in .csv, such as --out fixes.csv")
    if out.exists():
        raise ValueError(f"--out {known.out}: is there already, perhaps with your changes; give another name")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {known.out}: there is no folder {out.absolute().parent}")
    return _Asked(out, known.json, rest)


def composed_plan(command: argparse.Namespace) -> tuple[Configuration, Path]:
    """The checked configuration, with the task that its data are for, and the folder of all outputs."""
    from bbframe.app.command_line import key_of
    from bbframe.app.composition import composition
    from bbframe.app.run_request import RunRequest
    from bbframe.registry import parse_part
    from bbframe.run.configuration import parse_configuration

    with composition(**command.places) as compose:
        request = RunRequest(compose, command.overrides)
        if request.swept:
            raise ValueError(f"data looks at one data set; give one value of {' and of '.join(request.swept)}")
        request = request.with_text()
        config = request.data
        options = parse_part("data", config["data"], "data")
        wanted = getattr(options, "task", config["task"]["name"])
        stated = {key_of(override) for override in command.overrides}
        if wanted != config["task"]["name"] and "task" not in stated:
            # the task's own choice of data comes before the one that is typed
            config = RunRequest(compose, [f"task={wanted}", *command.overrides]).with_text().data
    plan = parse_configuration(config)
    return plan, Path(plan.run.output_dir)


def _network(plan: Configuration) -> tuple[Backbone | None, str]:
    """The backbone with its weights and what it is called, or None; why there is none is said in one line."""
    from bbframe.extraction.stage_pooling import make_with_all_stages
    from bbframe.run.masking import outward

    if not getattr(plan.backbone.source, "pretrained", False):
        return None, ""
    try:
        net = make_with_all_stages(plan.backbone)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        print(
            outward(f"{plan.backbone_name}: no weights, so images are compared by pixels: {reason}"), file=sys.stderr
        )
        return None, ""
    source = plan.backbone.source.checkpoint or plan.backbone_name
    return net, f"{plan.backbone_name} ({source}), the mean of {net.out_features[-1]}"


def _finest_stride(plan: Configuration, net: Backbone | None) -> int:
    """The stride of the finest selected map, by the network that was loaded where there is one."""
    if net is None:
        return min(plan.backbone.config.strides)
    strides = {stage.name: stage.stride for stage in net.config.stages}
    return min(strides.get(name, strides[net.out_features[-1]]) for name in plan.backbone.config.out_features)


def _data(plan: Configuration, net: Backbone | None) -> DataModule:
    """The images as a run has them, but that unreadable files are kept to be named."""
    from bbframe.data import make_data
    from bbframe.data.loading_options import FileOptions
    from bbframe.preprocessing import Preprocessing

    options: Any = plan.data
    if isinstance(options, FileOptions):
        options = replace(options, verify=False, on_error="skip", max_errors=10**9)
    return make_data(
        options,
        seed=plan.run.seed,
        preprocessing=Preprocessing() if net is None else net.preprocessing,
        num_channels=plan.backbone.config.num_channels,
        stride=max(plan.backbone.config.strides),
    )


def _audited(data: DataModule, net: Backbone | None, features: str, stride: int) -> DataAudit:
    """The audit, with a count of the images on a terminal."""
    import torch

    from bbframe.audit.data_audit import audit_data

    shown = sys.stderr.isatty()

    def tell(done: int, of: int) -> None:
        if shown:
            print(
                f"\rlooked at {done:,} of {of:,} images", end="\n" if done == of else "", file=sys.stderr, flush=True
            )

    if net is not None and torch.cuda.is_available():
        net = net.to("cuda")
    audit = audit_data(data, net, features=features, stride=stride, tell=tell)
    if data.skipped:
        first = next(iter(data.skipped.items()))
        audit.notes.append(f"{len(data.skipped)} images or annotations were left out unseen: {first[0]} ({first[1]}).")
    return audit


def _write(output: Path, name: str, data: DataModule, audit: DataAudit, plain: dict[str, Any]) -> Path:
    """Write report.html and audit.json into a new folder, and return it."""
    from bbframe.app.run_folder import new_folder
    from bbframe.files import write_text
    from bbframe.report.page.data_page import shown_numbers, write_data_page
    from bbframe.report.page.thumbnails import read_thumbnails
    from bbframe.run.masking import outward

    folder = new_folder(output / "data" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}")
    places, numbers = audit.traits.places, shown_numbers(plain)

    def read(number: int) -> Any:
        part, index = places[number]
        return data.parts[part].read(index)

    photos = dict(zip(numbers, read_thumbnails(read, numbers, MOST_PHOTO_BYTES), strict=False))
    write_text(folder / "audit.json", outward(json.dumps(plain, indent=1)) + "\n")
    write_data_page(folder / "report.html", name, plain, photos)
    return folder


def _fixes_line(out: Path | None, audit: DataAudit) -> str:
    if not audit.findings:
        return "Nothing was found that would spoil a comparison."
    excluded = sum(finding.action == "exclude" for finding in audit.findings)
    counts = f"{len(audit.findings):,} rows: {excluded:,} to exclude, {len(audit.findings) - excluded:,} to check"
    if out is None:
        return f"fixes: {counts}; --out fixes.csv writes them, data.exclude=fixes.csv honours them"
    return f"fixes: {out}, {counts}; data.exclude={out} leaves out the first and ignores the others"
