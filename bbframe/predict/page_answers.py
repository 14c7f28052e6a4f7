"""What the page of `bbframe serve` shows for an image."""

from __future__ import annotations

from typing import Any

from bbframe.imaging.decode import read_image, reason
from bbframe.predict.image_predictor import ImagePredictor
from bbframe.predict.image_results import ClassResult
from bbframe.run.masking import outward


class PageAnswers:
    """Called with the path of an image file, and of a detector with a threshold: returns what is shown, and a note.

    A classifier shows {class: probability}, a detector the image with boxes. `refusal` is what is raised, with one
    line, for a file that is no image. Raises ValueError for a task whose answers are neither classes nor boxes.
    """

    def __init__(self, network: ImagePredictor, refusal: type[Exception] = ValueError):
        if network.task_name not in ("classification", "detection"):
            raise ValueError(f"serve: task={network.task_name} is neither classification nor detection")
        self.network, self.refusal = network, refusal

    def __call__(self, path: str | None, threshold: float = 0.5) -> tuple[Any, str]:
        if path is None:  # the image was taken away
            return None, ""
        try:
            image = read_image(path, self.network.decoding)
        except Exception as error:  # a decoder may raise anything on a broken file
            raise self.refusal(f"this image cannot be read: {outward(reason(error))}") from error
        result = self.network.predict_images(image, threshold=threshold)
        if isinstance(result, ClassResult):
            doubt = f"unlike the training images: distance {result.distance:.2g}, above 1" if result.unfamiliar else ""
            return dict(result.top(len(result.class_names))), doubt
        count = len(result)
        return result.draw(image), f"{count} object{'s' * (count != 1)} with a score of {threshold:g} or more"
