"""What `--help` prints, read off the files without importing anything heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from textwrap import TextWrapper

from bbframe.app.places import CONF, file_choices

HELP = """Train any vision backbone on your images, and choose it.

usage: bbframe train [group=choice] [key=value] ...
       bbframe list [part of a name]
       bbframe info [group=choice] [key=value] ...
       bbframe rank [data=...] [backbones=...] [budget=15m] [key=value] ...
       bbframe embed run=<run folder>|backbone=... images=<folder or files> [--knn 5]
       bbframe data [group=choice] [key=value] ... [--out fixes.csv]
       bbframe predict run=<run folder> images=<folder or files> [key=value] ...
       bbframe export run=<run folder> [format=onnx] [key=value] ...
       bbframe push run=<run folder> repo=user/name [key=value] ...
       bbframe serve run=<run folder> [port=7860]
       bbframe runs [folder] [--where ...] [--sort key]
       bbframe compare <run folder> <run folder> ...
       bbframe report <run, sweep or ranking folder> ...

  train    what `python train.py` does
  list     all architectures and variants: parameters, stages, channels, strides, Hub id, timm's name
  info     one backbone: each stage's map, parameters and GMACs; memory and this machine's latency
  rank     which backbones and which stages suit your images: scores within minutes, then a race of the best
  embed    the features of images as a file for other programs, and nearest neighbours
  data     what spoils comparisons in a data set: copies, leaks between parts, likely wrong labels, outliers
  data shard  a data set as a few large files, which a disk, a web server or S3 gives out faster
  export   write a trained network as a file: ONNX, OpenVINO, TorchScript or torch.export
  predict  labels or boxes for images, by a network that was trained: pictures, and a table
  push     a trained network with a model card on the Hub, where bbframe.load finds it
  serve    a page on this machine to drop images on
  runs     all runs below a folder: status, metrics, reasons of failures; to filter and to sort
  compare  what differs between runs: configuration, metrics, and the test images that each gets wrong
  report   the page of a run, a sweep or a ranking, report.html, again

`bbframe <command> --help` shows all of it."""

LIST_HELP = """All architectures and variants, as a table.

usage: bbframe list [--json] [--config-dir FOLDER] [part of a name]

Each is a choice of the group `backbone`: what has "_tiny" in its name is listed by `bbframe list _tiny`.
Parameters are those of the backbone with its last stage, no classifier counted.

flags:
  --json                 as plain data, with every stage and the exact number of parameters
  --config-dir FOLDER    a folder with groups of your own, laid out like conf/
  --plugin MODULE        a Python module with backbones of your own

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


RANK_HELP = """Which backbone, and which of its stages, for your images: scores within minutes, then a race.

usage: bbframe rank [data=...] [backbones=...] [budget=15m] [key=value] ...

Each backbone looks once at up to 1,000 training images, at its checkpoint's own size and preprocessing. Every stage is
scored by leave-one-out classifiers, stages are chosen as long as one adds more than chance does, and the finalists,
the best by these scores and the best by accuracy on ImageNet, are trained until the budget is used up. A table, a page
(report.html) and rank.json say what came out, how sure it is, and which command trains the winner in full. Features
are kept on disk (BBFRAME_CACHE, else ~/.cache/bbframe), so that a second question about the same images is answered
without computing them again, and a ranking that was killed goes on.

options:
  backbones=a,b     names, patterns (swin*), timm/<name>, folders of weights, or lists: small (at most 30 M
                    parameters), standard (30 M to 100 M), all, cached (weights are there without a network);
                    without it: the largest small and the largest standard variant of each architecture
  images=1000       how many training images are looked at, of each class its share
  budget=15m        time of everything; finalists are trained in what is left of it
  finalists=4       how many are trained; 0 stops after the scores
  seeds=0,1         of the race; several tell chance from difference
  image_size=224    for all backbones, in the place of their own
  pretrained=false  rank untrained networks; everything says so
  out=FOLDER        where the results go; the folder of an earlier ranking goes on

All other arguments are those of `bbframe train`: data, task, head, optim, recipes, seed, --plugin, hydra/launcher and
so on; the race trains with them.

examples:
  bbframe rank data=image_folder data.root=photos
  bbframe rank data=image_folder data.root=photos backbones=small budget=1h seeds=0,1,2
  bbframe rank data=coco data.train_images=photos data.train_annotations=photos.json finalists=0
  bbframe rank backbones=resnet18,convnextv2_atto,timm/efficientnet_b0 finalists=0"""

EMBED_HELP = """The features of images by a backbone or a trained network, for search, clustering and plots.

usage: bbframe embed run=<run folder> images=<folder or files> [out=features.npy] [--knn 5]
       bbframe embed backbone=... backbone.pretrained=true images=<folder or files> [key=value] ...

features.npy holds a row an image, (images, channels) float32, and features_images.csv the names of the images;
out=features.parquet holds both (pip install 'bbframe[parquet]').

options:
  images=PATH         files, folders and patterns
  run=FOLDER          a trained run, a checkpoint, a saved folder or its id on the Hub, in the place of backbone=
  out=FILE            ends in .npy or .parquet; default: outputs/embeddings/<date>/features.npy
  stage=NAME          a stage's name or index; default: the last one
  kind=mean           the mean over the stage's map; or class_token, where the network has one
  image_size=224      in the place of the checkpoint's own
  batch_size=32
  overwrite=true      replace results that are there
  --knn K             the K nearest neighbours of each image by cosine: a table, and a picture of some

examples:
  bbframe embed backbone=dinov2_small backbone.pretrained=true images=photos --knn 5
  bbframe embed run=outputs/classification/<run> images=photos out=photos.parquet stage=stage3"""

DATA_HELP = """What the images say before anything is trained.

usage: bbframe data [--out fixes.csv] [--json] [group=choice] [key=value] ...

Arguments are those of `bbframe train`; what counts is data and backbone. Every image is read once. The report says

  counts         images, in detection objects, of each part and class, and how unequal the classes are
  unreadable     files that cannot be decoded, and why
  leaks          images that are in two of train, val and test; near leaks look the same but for size or compression
  copies         images that are twice in a part, exactly or nearly (perceptual hash, and a network's features)
  wrong labels   images whose nearest neighbours say another class, the most doubtful first; not for objects
  outliers       images that are far from all others of their class
  small objects  objects that are, once resized, smaller than the stride of the backbone's finest selected map

Images are compared by what the backbone makes of them with backbone.pretrained=true, else, or where its weights are
not to be had, by their pixels. A page with the pictures, report.html, and all of it as plain data, audit.json, are
written to outputs/data/<date>_<time>_<data>/.

flags:
  --out FILE.csv         what to do, a row for each finding: part, image, problem, score, action, label, suggestion,
                         other. The action is exclude for unreadable images, for all but one of equal ones and for the
                         training copy of a leak, check for the rest. data.exclude=FILE.csv leaves out the images to
                         exclude; write relabel, exclude or keep where you have looked: relabel takes the class in
                         the column suggestion
  --json                 as plain data
  --config-dir FOLDER    a folder with groups of your own, laid out like conf/
  --plugin MODULE        a Python module with parts of your own

examples:
  bbframe data data=image_folder data.root=photos --out fixes.csv
  bbframe data data=image_folder data.root=photos backbone=dinov2_small backbone.pretrained=true
  bbframe data data=coco data.train_images=images data.train_annotations=train.json head=retinanet
  python train.py data=image_folder data.root=photos data.exclude=fixes.csv"""


PREDICT_HELP = """What a trained network says about images: its classes, or the objects in them.

usage: bbframe predict run=<run folder> images=<folder or files> [key=value] ...

  run=...           a run folder, of which checkpoints/best.ckpt is taken, else last.ckpt; a checkpoint file; a folder
                    that save_pretrained wrote; or the id of one on the Hub, user/name
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

Control characters in names are spelled out in predictions.csv. A name that begins with = + - or @ stays as it is, so
import the table into a spreadsheet as text if the names are a stranger's.

An image that cannot be read is named and skipped. The exit code is 0 when there was one that could be read.

examples:
  bbframe predict run=outputs/classification/<run> images=photos
  bbframe predict run=outputs/detection/<run> images=street.jpg out=seen threshold=0.3"""

RUNS_HELP = """The runs below a folder, in sweeps too, as a table: what they were, what came of them, why they failed.

usage: bbframe runs [folder] [--where CONDITION ...] [--sort KEY] [--columns KEY ...] [--reverse] [--json | --csv]

The folder is outputs unless another is given. A key is one of a run's metrics.json, with dots: test.accuracy,
seconds.total, tags; or folder, status, error; or val and test, the values of the run's own metric; or one of its
config.yaml: optim.lr, data.root.

flags:
  --where CONDITION ...  runs that fulfil all conditions: backbone=resnet18 'test.accuracy>0.9' 'tags=final'
                         with = and != (also patterns: 'backbone=swin*'), > >= < <=; quote > and < from the shell
  --sort KEY             upwards; -KEY downwards; a,b by a and then by b; runs without the value come last
  --reverse              the other way round
  --columns KEY ...      these columns and no others
  --json                 as plain data; pandas.DataFrame(json.load(file)) opens it
  --csv                  as a CSV file

The folders are the truth. <folder>/.bbframe-index.json remembers what was read from them: it may be deleted.

examples:
  bbframe runs
  bbframe runs outputs --where backbone=resnet* 'test.accuracy>0.9' --sort -test.accuracy
  bbframe runs --where status=failed --columns folder error
  bbframe runs --columns folder optim.lr test.accuracy --csv"""

COMPARE_HELP = """What differs between runs: configuration, metrics with intervals, and image by image.

usage: bbframe compare <run folder> <run folder> ... [--images N] [--json]

Each key of the configuration that differs, then the metrics. Of two runs that tested the same images it says by how
much the second differs from the first, with a 95 % bootstrap interval that is paired over these images. For
classification follow the test images that all runs get wrong and those that one alone gets wrong, the highest loss
first. Runs that tested different images are shown, and said not to be comparable.

flags:
  --images N             how many images of each kind to name, 10 unless said
  --json                 as plain data, with every image

examples:
  bbframe compare outputs/classification/<run> outputs/classification/<run>
  bbframe compare <sweep>/0_resnet18 <sweep>/1_swin <sweep>/2_dinov2 --images 30"""


REPORT_HELP = """The page of a run, a sweep or a ranking, report.html in its folder, made again.

usage: bbframe report [--plugin MODULE] <run, sweep or ranking folder> ...

Every run makes its page when it ends: what was asked, the result, curves, the tested images, data, weights and
environment in one file. A sweep makes one of all its runs. This makes it again, for runs of an earlier version, or
when it could not be made. A folder that holds the folders of single runs counts as a sweep.

Photos come from the run's data set: start the command in the folder in which the run was started, so that a relative
data.root is found. Where the network looked is computed from checkpoints/best.ckpt, else last.ckpt. What is gone is
left out, and the page says why.

flags:
  --plugin MODULE        a Python module with parts of your own that the run used

examples:
  bbframe report outputs/classification/<run>
  bbframe report outputs/classification/*"""


USAGE = """Train any vision backbone on your images.

usage: python train.py [-m] [group=choice] [key=value] ...

groups (choose one of each):
{groups}

main keys:
{keys}
  backbone.out_indices   which maps: [1,3]; or backbone.out_features=[stage1], backbone.out_strides=[8,16]
  backbone.pretrained    true loads backbone.checkpoint: an id on the Hub, a folder or a file
  trainer.max_epochs     data.root, optim.lr, task.freeze, ...: --cfg job shows every key and its value

flags:
  --help KEY             an option's type, range, value and meaning: --help optim.lr optim=sgd
  -m                     run every combination of values such as seed=1,2 and compare them in one table
  --dry-run              build everything, try a batch, say time, memory and disk, and stop; --json: as plain data
  --cfg job              show the configuration and stop
  --config-dir FOLDER    a folder with groups of your own, laid out like conf/
  --plugin MODULE        a Python module with parts of your own

examples:
  python train.py backbone=convnextv2 backbone.out_indices=[1,3]
  python train.py backbone=resnet50 backbone.pretrained=true data=image_folder data.root=photos
  python train.py -m backbone=resnet18,convnextv2_atto,dinov2_small seed=1,2"""


def usage(groups: Mapping[str, Sequence[str]] | None = None) -> str:
    """The help of `train`: groups, main keys and examples; `groups` are more than conf/ and recipes/ offer."""
    shape = TextWrapper(110, initial_indent="  ", subsequent_indent=" " * 12, break_on_hyphens=False)
    lines = [shape.fill(f"{group:<9} {' '.join(names)}") for group, names in (groups or file_choices()).items()]
    keys = re.findall(r"(?m)^(\w+): *(\S.*?) +# (.*)$", (CONF / "config.yaml").read_text(encoding="utf-8"))
    main_keys = [f"  {f'{key}={value}':<22} {comment}" for key, value, comment in keys]
    return USAGE.format(groups="\n".join(lines), keys="\n".join(main_keys))
