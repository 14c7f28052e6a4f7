"""`bbframe embed`: the features of images for other uses, and their nearest neighbours as a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from bbframe.schema import Name, Options, Range, Sides, parse

if TYPE_CHECKING:
    from bbframe.extraction.embedding import Embedder, Embedding
    from bbframe.imaging.decode import Decoding

LISTED = 20  # skipped images that the last lines name
PICTURED = 12  # queries of the picture of neighbours


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(Options):
    """`run` is a run folder, a checkpoint, a saved folder or an id on the Hub; without it the overrides choose a
    backbone. `images` are files, folders and patterns. `stage` is one of the network's maps, by name or index, null
    the last; `kind` its mean, or the class token. `knn` neighbours of each image are listed and drawn. `out` ends in
    .npy or .parquet."""

    prefix: ClassVar[str] = "embed: "

    images: tuple[Name, ...] = ()
    run: Name | None = None
    out: Name | None = None
    stage: Name | None = None
    kind: Literal["mean", "class_token"] = "mean"
    image_size: Sides | None = None
    batch_size: Annotated[int, Range(1, 65_536, "images")] = 32
    knn: Annotated[int, Range(1, 1000, "neighbours")] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.images:
            raise ValueError("embed: images must name files or folders: images=photos")


def embed(arguments: Sequence[str]) -> int:
    """Write the features of images as a command line says; returns the exit code."""
    from bbframe.run.masking import outward

    options, others = _read(arguments)
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    out = Path(options.out or f"outputs/embeddings/{stamp}/features.npy")
    from bbframe.predict.input_images import find_images

    try:
        inputs = find_images(options.images, out.parent)
    except ValueError as error:
        raise ValueError(str(error).replace("predict:", "embed:", 1)) from error
    from bbframe.extraction.embedding import check_format, embed_files, names_of, write_embedding

    check_format(out)
    beside = [names_of(out), *(_beside(out, end) for end in (".csv", ".png"))]
    if there := [path for path in [out, *beside] if path.exists() and not options.overwrite]:
        raise ValueError(f"embed: {there[0]} is there already; give another out=, or overwrite=true replaces it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"embed: out={out}: its folder cannot be made ({error.strerror})") from error
    embedder, decoding = _of_run(options) if options.run else _of_backbone(options, others)
    files = [(image.name, image.path) for image in inputs]
    found = embed_files(embedder, files, options.batch_size, decoding)
    written = write_embedding(found, out)
    if options.knn:
        untrained = embedder.net.load_report is None and not options.run
        title = "Nearest neighbours by an untrained network" if untrained else "Nearest neighbours"
        written += _write_neighbours(found, dict(files), options.knn, out, decoding, title)
    if found.skipped:
        lines = [f"{name}: {why}" for name, why in found.skipped.items()]
        more = f"\n  and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
        print("skipped:", *map(outward, lines[:LISTED]), sep="\n  ", end=f"{more}\n")
    stage, kind = embedder.key
    count, channels = found.features.shape
    print(f"{count} of {len(files)} images, {channels} features each ({stage}, {kind}): {outward(str(written[0]))}")
    for path in written[1:]:
        print(outward(str(path)))
    return 0


def _read(arguments: Sequence[str]) -> tuple[EmbedOptions, list[str]]:
    """The options of embed, and the overrides and flags that choose a backbone. Raises ValueError in one line."""
    import yaml

    from bbframe.app.text_arguments import read_paths

    given: dict[str, Any] = {}
    others: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        key, equals, text = word.partition("=")
        if key == "--knn":
            number = text if equals else words.pop(0) if words else ""
            if not number.isdigit():
                raise ValueError(f"embed: --knn {number}: must be a number of neighbours, such as --knn 5")
            given["knn"] = int(number)
        elif key == "images" and equals:
            given.setdefault("images", []).extend(read_paths(text))
        elif "images" in given and not equals and Path(word).expanduser().exists():
            given["images"].append(str(Path(word).expanduser()))  # a shell expands a pattern to several words
        elif key in ("run", "out") and equals:
            given[key] = str(Path(text).expanduser())
        elif key == "stage" and equals:
            given[key] = text
        elif key in EmbedOptions.__dataclass_fields__ and equals:
            given[key] = yaml.safe_load(text)
        else:
            others.append(word)
    options = parse(EmbedOptions, given, "embed")
    if not options.run and not any(word.partition("=")[0] == "backbone" for word in others):
        raise ValueError("embed: name a network: backbone=dinov2_small backbone.pretrained=true, or run=<run folder>")
    if options.run and others:
        raise ValueError(f"embed: {others[0]}: run= brings its own network; leave this out, or leave out run=")
    return options, others


def _of_run(options: EmbedOptions) -> tuple[Embedder, Decoding]:
    from bbframe.extraction.embedding import Embedder
    from bbframe.predict.network_loading import load_predictor
    from bbframe.predict.trained_network import TrainedNetwork

    if options.image_size is not None:
        raise ValueError("embed: image_size= belongs to backbone=; the images of a run have the size of its training")
    network = load_predictor(str(options.run))
    if not isinstance(network, TrainedNetwork):
        raise ValueError(f"embed: run={options.run}: an exported file gives no features; name the run, or its folder")
    embedder = Embedder(network.backbone, network.preprocessing.prepared, options.stage, options.kind)
    return embedder, network.decoding


def _of_backbone(options: EmbedOptions, others: Sequence[str]) -> tuple[Embedder, Decoding]:
    import dataclasses

    import torch

    from bbframe.app.command_line import parse_arguments
    from bbframe.app.composition import composition
    from bbframe.app.execution import load_plugins
    from bbframe.app.run_request import RunRequest
    from bbframe.data.images.image_options import ImageFolderOptions
    from bbframe.data.images.image_transforms import eval_preprocessing
    from bbframe.extraction.embedding import Embedder
    from bbframe.extraction.stage_pooling import make_with_all_stages
    from bbframe.imaging.decode import AS_USUAL
    from bbframe.run.configuration import parse_configuration

    command = parse_arguments(others)
    load_plugins(command.plugin)
    with composition(**command.places) as compose:
        plan = parse_configuration(RunRequest(compose, command.overrides).with_text().data)
    torch.manual_seed(plan.run.seed)
    net = make_with_all_stages(plan.backbone)
    if net.load_report is None:
        print("the network is untrained: backbone.pretrained=true loads its weights")
    net = net.to("cuda" if torch.cuda.is_available() and plan.trainer.accelerator != "cpu" else "cpu")
    preprocessing = net.preprocessing
    if options.image_size is not None:
        size = options.image_size
        sides = (size, size) if isinstance(size, int) else size
        preprocessing = dataclasses.replace(preprocessing, size=sides)
    prepare = eval_preprocessing(ImageFolderOptions(root="."), preprocessing, net.config.num_channels)
    return Embedder(net, prepare.prepared, options.stage, options.kind), AS_USUAL


def _beside(out: Path, end: str) -> Path:
    return out.with_name(f"{out.stem}_neighbours{end}")


def _write_neighbours(
    found: Embedding, paths: dict[str, Path], count: int, out: Path, decoding: Decoding, title: str
) -> list[Path]:
    """The table and the picture of each image's nearest neighbours, beside the features."""
    from bbframe.extraction.cosine_neighbours import nearest_rows
    from bbframe.files import atomic, encodable
    from bbframe.imaging.decode import read_image
    from bbframe.report.neighbour_grid import neighbour_grid

    count = min(count, len(found.names) - 1)
    if count < 1:
        raise ValueError("embed: --knn needs two images or more")
    similarity, index = nearest_rows(found.features, None, count)
    table, picture = _beside(out, ".csv"), _beside(out, ".png")
    rows: list[list[Any]] = [["image", "place", "neighbour", "similarity"]]
    for image, near, close in zip(found.names, index, similarity, strict=True):
        for place, (other, cosine) in enumerate(zip(near, close, strict=True), start=1):
            rows.append([encodable(image), place, encodable(found.names[other]), f"{cosine:.6f}"])
    with atomic(table) as part, part.open("w", encoding="utf-8", newline="") as text:
        csv.writer(text, lineterminator="\n").writerows(rows)

    step = max(1, len(found.names) // PICTURED)
    queries = list(range(0, len(found.names), step))[:PICTURED]
    neighbour_grid(
        lambda place: read_image(paths[found.names[place]], decoding),
        queries,
        index[queries],
        similarity[queries],
        picture,
        names=found.names,
        title=title,
    )
    return [table, picture]
