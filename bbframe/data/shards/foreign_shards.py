"""Open tars that other programs wrote for WebDataset: they are looked through once, and an index of them is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bbframe.data.faults import Faults, Skipped, raise_all
from bbframe.data.images.folder_layout import WORDS
from bbframe.data.loading_options import LoadingOptions
from bbframe.data.shards.kept_scans import Scanned, keep_scan, kept_scan
from bbframe.data.shards.litdata_scan import litdata_parts, open_litdata
from bbframe.data.shards.shard_images import ShardImages, ShardObjects
from bbframe.data.shards.shard_places import ShardFile, ShardPlace, tars_below
from bbframe.data.shards.shard_set import OpenedSet, reading_of
from bbframe.data.shards.tar_scan import NOT_WHOLE, TarScan
from bbframe.data.shards.tar_shards import TarShards
from bbframe.imaging.decode import Decoding

_MOST_LABELS = 10**6


def open_foreign(options: LoadingOptions, place: ShardPlace, names: list[str] | None) -> OpenedSet:
    """The tars called `names`, or all that lie below a folder.

    The name of a tar, or of its folder, says the part: train-0001.tar, val/0001.tar; without such a word it is for
    training. Raises ValueError in one line for all that is wrong with them.
    """
    where = f"data: shards={options.shards}"
    if names is None and (folders := litdata_parts(place)):
        return open_litdata(options, place, folders)
    if names is None:
        root: Any = place
        names = tars_below(root.root, where)
        if not names:
            raise ValueError(f"{where} holds neither shards.json nor a tar; `bbframe data shard` writes a set")
    named: dict[str, list[str]] = {}
    for name in names:
        named.setdefault(_part(name), []).append(name)
    if "train" not in named:
        raise ValueError(f"{where} has tars for {' and '.join(named)} alone; name those for training too")
    faults = Faults(place, getattr(options, "on_error", "raise") == "skip")
    files = {part: [ShardFile(name) for name in tars] for part, tars in named.items()}
    kept = kept_scan(options, place, files)
    if kept is None:
        kept = _scanned(options, place, files, faults)
    indexes, class_names, dropped = kept
    parts: dict[str, ShardImages | ShardObjects] = {}
    for part, index in indexes.items():
        reading = reading_of(options, place, TarShards(place, files[part]), files[part])
        parts[part] = ShardImages(index, reading) if index.labels is not None else ShardObjects.of(index, reading)
    skipped = Skipped(getattr(options, "tolerated_errors", 0))
    skipped.assume(faults.assumed)
    skipped.note([(name, f"{kind}, {why}" if why else kind) for kind, name, why in dropped])
    masks = all(index.masks is not None for index in indexes.values())
    return OpenedSet(parts, class_names, None, skipped, masks)


def _part(name: str) -> str:
    """The part that the name of a tar means, by the last word that says one."""
    words = [WORDS[word][0] for word in re.findall(r"[a-z]+", name.lower()) if word in WORDS]
    return words[-1] if words else "train"


def _scanned(options: LoadingOptions, place: ShardPlace, files: dict[str, list[ShardFile]], faults: Faults) -> Scanned:
    """Look through all tars, and keep what they hold for the next run."""
    decoding = Decoding.of(options) if getattr(options, "verify", False) else None
    scans = {part: TarScan(options.task, faults, decoding) for part in files}
    for part, scan in scans.items():
        for number, file in enumerate(files[part]):
            try:
                path = place.path(file)
            except ValueError as error:
                faults.drop(NOT_WHOLE, file.name, str(error))
                continue
            if not scan.take(number, path, file.name) and place.far:
                path.unlink(missing_ok=True)  # it may be mended there: the next run fetches it again
        if not len(scan.places) and not faults.kinds:
            faults.fatal(f"no {part} samples that can serve")
    numbers, class_names = classes_of(scans, options.task, faults)
    raise_all([faults])
    indexes = {part: scan.index(numbers) for part, scan in scans.items()}
    return keep_scan(options, place, files, (indexes, class_names, faults.dropped))


def classes_of(scans: Mapping[str, TarScan], task: str, faults: Faults) -> tuple[dict[int | str, int], list[str]]:
    """The classes of the labels as they are written, and what the classes are called."""
    names: dict[int, str] = {}
    for scan in scans.values():
        for number, word in scan.names.items():
            if names.setdefault(number, word) != word:
                faults.fatal("classes of two names", f"{number}: {names[number]!r} and {word!r}")
    if task == "detection":
        most = max((int(max(scan.table[4::7], default=0)) for scan in scans.values()), default=0)
        found: set[int | str] = set(range(most + 1))
    else:
        found = {label for scan in scans.values() for label in scan.labels}
    if len({type(label) for label in found}) > 1:
        faults.fatal("labels that are numbers in some samples and words in others")
        return {}, []
    words = sorted(label for label in found if isinstance(label, str))
    if words:
        lacking = sorted({str(label) for scan in scans.values() for label in scan.labels} - set(scans["train"].labels))
        if lacking:
            faults.fatal("classes that train lacks", ", ".join(lacking[:5]))
        images = sum(len(scan.labels) for scan in scans.values())
        if len(words) > 1 and 2 * len(words) > images:
            faults.fatal(f"{len(words)} labels of {images} images, such as {words[0]!r:.60}, which look like captions")
        return {word: number for number, word in enumerate(words)}, words
    most = max((int(label) for label in found), default=0)
    if most > _MOST_LABELS:
        faults.fatal(f"a class number {most}, more than {_MOST_LABELS}")
        return {}, []
    return {number: number for number in range(most + 1)}, [names.get(i, str(i)) for i in range(most + 1)]
