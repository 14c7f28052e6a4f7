"""Small folders of real image files, and data modules made of them."""

import json

import numpy as np
from PIL import Image

from bbframe.data import make_data
from bbframe.preprocessing import Preprocessing
from bbframe.registry import parse_part


def build(name="digits", *, seed=1, preprocessing=None, num_channels=3, stride=32, masks=False, **options):
    """A data module by name; 16x16 images unless a preprocessing is given."""
    preprocessing = preprocessing or Preprocessing(size=(16, 16))
    if name == "image_folder":
        options = {"num_workers": 0, "batch_size": 4} | options
    parsed = parse_part("data", {"name": name, **options}, "data")
    return make_data(
        parsed, seed=seed, preprocessing=preprocessing, num_channels=num_channels, stride=stride, masks=masks
    )


def write(path, shade=0, size=(20, 12)):
    """An image file of noise whose level depends on `shade`, with all folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(shade).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_coco(folder, name="train", count=6, *, categories=((1, "disc"), (5, "box")), size=(40, 30), seed=0):
    """A miniature data set in COCO's format: `folder/name/*.png` and `folder/name.json`; returns the JSON's content.

    Each image shows a dark disc and a bright box, of which the JSON has the boxes, the box's polygon and the disc's
    run lengths, uncompressed. Image 3 has no annotation, and image 2 a crowd over its left half besides. Write the
    content anew, changed, with `rewrite`.
    """
    random = np.random.default_rng(seed)
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    images, annotations = [], []
    for i in range(1, count + 1):
        pixels = random.integers(100, 140, (height, width, 3), np.uint8)
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
        if i != 3:
            y, x = random.integers(5, height - 5), random.integers(5, width // 2 - 5)
            disc = (rows - y) ** 2 + (columns - x) ** 2 <= 16
            pixels[disc] = 10
            left, top = random.integers(width // 2, width - 8), random.integers(0, height - 8)
            w, h = random.integers(4, 9, 2)
            pixels[top : top + h, left : left + w] = 240
            right, bottom = left + w, top + h
            polygon = [left, top, right, top, right, bottom, left, bottom]
            objects = [
                (categories[0][0], [x - 4, y - 4, 9, 9], run_lengths(disc), 0),
                (categories[1][0], [left, top, w, h], [[float(v) for v in polygon]], 0),
            ]
            if i == 2:
                crowd = columns < width // 2
                objects.append((categories[0][0], [0, 0, width // 2, height], run_lengths(crowd), 1))
            for category, bbox, segmentation, crowd in objects:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": i,
                        "category_id": category,
                        "bbox": [float(v) for v in bbox],
                        "area": float(bbox[2] * bbox[3]),
                        "iscrowd": crowd,
                        "segmentation": segmentation,
                    }
                )
        path = folder / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": title} for number, title in categories],
    }
    rewrite(folder, content, name)
    return content


def load_coco(folder, *parts, **options):
    """The data module of what `write_coco` wrote: files of `parts`, or of train alone; sizes as they are."""
    files = {}
    for part in parts or ("train",):
        files |= {f"{part}_images": str(folder / part), f"{part}_annotations": str(folder / f"{part}.json")}
    plain = {"num_workers": 0, "batch_size": 2, "min_size": None, "max_size": None, "augment": None}
    return build("coco", **files, **plain | options)


def rewrite(folder, content, name="train"):
    (folder / f"{name}.json").write_text(json.dumps(content))


def run_lengths(mask):
    """COCO's uncompressed run lengths of a mask: column by column, zeros first."""
    flat = mask.T.ravel()
    ends = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1), len(flat)]
    counts = np.diff(ends).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}
