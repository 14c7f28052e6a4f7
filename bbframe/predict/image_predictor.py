"""How a trained network is called on images, whatever runs it: PyTorch or an exported file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any

from PIL import Image
from torch import Tensor

from bbframe.imaging.decode import AS_USUAL, Decoding
from bbframe.imaging.image_input import as_pictures
from bbframe.predict.image_results import BoxResult, ClassResult, box_result
from bbframe.preprocessing import Preprocessing
from bbframe.schema import whole_number
from bbframe.tasks.calibration import Calibration

THRESHOLD = 0.5  # scores of objects that count, unless the caller says otherwise


class ImagePredictor(ABC):
    """Images in, labelled results out.

    Attributes: `task_name` ("classification", "detection" or a user's own), `class_names`, `category_ids` (by which
    numbers the data set calls the classes, by default their places), `preprocessing` (callable: an image becomes the
    network's input), `decoding` (how the training read image files), `calibration`, and `origin`: what an error calls
    the network.
    """

    task_name: str
    class_names: Sequence[str]
    category_ids: Sequence[int]
    preprocessing: Preprocessing
    decoding: Decoding = AS_USUAL
    calibration: Calibration = Calibration()
    origin: str = ""

    @abstractmethod
    def answers(self, inputs: Sequence[Tensor]) -> list[Any]:
        """What the network says about prepared images (C, H, W) of any sizes.

        A `ClassResult` for each or, of a detector, a dict of `boxes` (N, 4) in pixels of the prepared image, `scores`,
        `labels` and, if any, `masks` (N, 1, 28, 28). Raises ValueError for numbers that are not finite.
        """

    def predict_images(self, images: Any, *, threshold: float = THRESHOLD, batch_size: int = 8) -> Any:
        """The result for one image, or a list of results for several.

        An image is a PIL image, a path, bytes of a file, an array (H, W[, C]) or a tensor (C, H, W) of bytes or of
        numbers 0..1, of any size; several are a list of them, or an array or tensor with one more axis. A classifier
        gives a `ClassResult`, a detector a `BoxResult` with the objects whose score is `threshold` or more (0: all
        that it finds). Raises ValueError, in one line, for what is no image.
        """
        if not isinstance(threshold, Real) or not 0 <= float(threshold) <= 1:
            raise ValueError(f"threshold={threshold!r} must be from 0 to 1; 0 gives all objects that were found")
        batch_size = whole_number("batch_size", batch_size)
        pictures, single = as_pictures(images, self.decoding)
        found: list[Any] = []
        for start in range(0, len(pictures), batch_size):
            part = pictures[start : start + batch_size]
            answers = self.answers([self.preprocessing.prepared(picture) for picture in part])
            found += [self.labelled(answer, picture) for answer, picture in zip(answers, part, strict=True)]
        if self.task_name == "detection":
            found = [result.above(float(threshold)) if isinstance(result, BoxResult) else result for result in found]
        return found[0] if single else found

    def labelled(self, answer: Any, image: Image.Image) -> ClassResult | BoxResult | Any:
        """An answer in terms of the image that the input was made from; a user's own task's as it is."""
        if not isinstance(answer, dict) or "boxes" not in answer:
            return answer
        return box_result(answer, self.preprocessing.scale(image.size), image.size, self.class_names)
