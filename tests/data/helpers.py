"""Small folders of real image files, and data modules made of them."""

import numpy as np
from PIL import Image

from bbframe.data import OPTIONS, make_data
from bbframe.options import parse
from bbframe.preprocessing import Preprocessing


def build(name="digits", *, seed=1, preprocessing=None, num_channels=3, stride=32, **options):
    """A data module by name; 16x16 images unless a preprocessing is given."""
    preprocessing = preprocessing or Preprocessing(size=(16, 16))
    if name == "image_folder":
        options = {"num_workers": 0, "batch_size": 4} | options
    parsed = parse(OPTIONS[name], options, "data")
    return make_data(parsed, seed=seed, preprocessing=preprocessing, num_channels=num_channels, stride=stride)


def write(path, shade=0, size=(20, 12)):
    """An image file of noise whose level depends on `shade`, with all folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(shade).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
