"""Prediction: a trained network labels images and leaves pictures and tables.

Classification writes predictions.csv. Detection writes predictions.json, a list in the format of COCO's results with
all boxes that the detector lets through, and images.json, which describes the images and categories behind their ids
in COCO's own layout: `COCO("images.json").loadRes("predictions.json")`. Pictures keep the names of the images, below
`out`. Heavy modules are imported once the images have been found.
"""

from __future__ import annotations

import time
from pathlib import Path

from bbframe.predict.input_images import find_images
from bbframe.predict.predict_options import PredictOptions
from bbframe.predict.results_folder import check_out, results_folder
from bbframe.run.record import read_record

LISTED = 20  # skipped images that the last lines name


def predict_images(options: PredictOptions) -> int:
    """Label images, write the results and print a summary; returns exit code 0 if at least one image could be read.

    Raises ValueError if an option or a file that it names is wrong.
    """
    started = time.perf_counter()
    checkpoint = find_checkpoint(Path(options.run))
    home = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    out = Path(options.out) if options.out else home / "predictions"
    inputs = find_images(options.images, out)
    check_out(out, inputs, options.overwrite)
    with results_folder(out):
        from bbframe.predict.prediction_results import write_predictions
        from bbframe.predict.trained_network import load_trained_network

        network = load_trained_network(checkpoint, options.device)
        count, skipped = write_predictions(network, inputs, out, options.threshold, options.batch_size)
    if skipped:
        more = f"\n  and {len(skipped) - LISTED} more" if len(skipped) > LISTED else ""
        print("skipped:", *skipped[:LISTED], sep="\n  ", end=f"{more}\n")
    seconds = time.perf_counter() - started
    print(f"predicted {count} of {len(inputs)} images, {len(skipped)} skipped, {seconds:.1f} s: {out}")
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
        f"{run}: the run left no checkpoints/best.ckpt or last.ckpt, as with debug=true or train=false; give another"
    )
