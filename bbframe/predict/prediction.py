"""Prediction: a trained network labels images and leaves pictures and tables.

Classification writes predictions.csv. Detection writes predictions.json, a list in the format of COCO's results with
all boxes that the detector lets through, and images.json, which describes the images and categories behind their ids
in COCO's own layout: `COCO("images.json").loadRes("predictions.json")`. Pictures keep the names of the images, below
`out`. Heavy modules are imported once the images have been found.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bbframe.predict.input_images import TABLES, InputImage, find_images
from bbframe.predict.network_loading import is_exported, load_predictor
from bbframe.predict.predict_options import PredictOptions
from bbframe.run.masking import outward
from bbframe.run.record import read_record

LISTED = 20  # skipped images that the last lines name


def predict_images(options: PredictOptions) -> int:
    """Label images, write the results and print a summary; returns exit code 0 if at least one image could be read.

    Raises ValueError if an option or a file that it names is wrong.
    """
    started = time.perf_counter()
    exported = is_exported(Path(options.run))
    checkpoint = Path(options.run) if exported else find_checkpoint(Path(options.run))
    home = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    out = Path(options.out) if options.out else home / "predictions"
    inputs = find_images(options.images, out)
    check_out(out, inputs, options.overwrite)
    with results_folder(out):
        from bbframe.predict.prediction_results import write_predictions

        network = load_predictor(str(checkpoint), options.device)
        count, skipped = write_predictions(network, inputs, out, options.threshold, options.batch_size)
    if skipped:
        more = f"\n  and {len(skipped) - LISTED} more" if len(skipped) > LISTED else ""
        print("skipped:", *map(outward, skipped[:LISTED]), sep="\n  ", end=f"{more}\n")
    seconds = time.perf_counter() - started
    print(f"predicted {count} of {len(inputs)} images, {len(skipped)} skipped, {seconds:.1f} s: {outward(str(out))}")
    return 0 if count else 1


def find_checkpoint(run: Path) -> Path:
    """The checkpoint file of a run: best.ckpt, else last.ckpt. Raises ValueError for a run that has none."""
    if run.is_file():
        return run
    read_record(run)
    for name in ("best.ckpt", "last.ckpt"):
        if (path := run / "checkpoints" / name).is_file():
            return path
    raise ValueError(
        f"{run}: the run left no checkpoints/best.ckpt or last.ckpt, as with debug=true, train=false or "
        "trainer.keep=0; give another"
    )


def check_out(out: Path, inputs: Sequence[InputImage], overwrite: bool) -> None:
    """Raise ValueError if results in the folder `out` would overwrite files."""
    files = {os.path.realpath(image.path): image.path for image in inputs}
    home = os.path.realpath(out) + os.sep
    for file, path in files.items():
        if file.startswith(home):
            raise ValueError(f"predict: out={out} holds your image {path}; name another folder for the results")
    for image in inputs:
        if (lost := files.get(os.path.realpath(image.picture))) is not None:  # through a link
            raise ValueError(f"predict: out={out} would overwrite your image {lost}; name another folder")
    written = [out / name for table in TABLES for name in table] + [image.picture for image in inputs]
    if not overwrite and (present := [path for path in written if path.exists()]):
        raise ValueError(
            f"predict: out={out} holds results already ({present[0].relative_to(out)}); name another folder, or "
            "overwrite=true replaces them"
        )


@contextmanager
def results_folder(out: Path) -> Iterator[None]:
    """Make a folder, and remove it again if nothing is put into it. Raises ValueError if it cannot be made."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"predict: out={out}: cannot make this folder ({error.strerror})") from error
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
