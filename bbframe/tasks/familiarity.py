"""How far an image is from those of the training: the Mahalanobis distance of its features to the nearest class.

Lee et al., arXiv:1807.03888, with the covariance within classes shrunk as by Ledoit and Wolf (2004).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

SHARE = 0.05  # of the validation images, which lie beyond the threshold
FEWEST = 20  # validation images on which a threshold is set


class Familiarity(nn.Module):
    """The distance of features (B, C) to the nearest class: (B,) float32.

    It is in units of the threshold, beyond which a share `SHARE` of the validation images lies: an image above 1 is
    unlike those of the training. `whitening` (C, C) makes the covariance within a class the identity; `centres` (K, C)
    are the whitened means of the classes that the training images show.
    """

    whitening: Tensor
    centres: Tensor

    def __init__(self, whitening: Tensor, centres: Tensor):
        super().__init__()
        self.register_buffer("whitening", whitening.float())
        self.register_buffer("centres", centres.float())

    def forward(self, features: Tensor) -> Tensor:
        z, centres = features.float() @ self.whitening.float(), self.centres.float()
        squares = (z * z).sum(1, keepdim=True) - 2 * z @ centres.T + (centres * centres).sum(1)
        return squares.clamp(min=0).amin(1).sqrt()


def fit_familiarity(train: Tensor, labels: Tensor, val: Tensor) -> Familiarity | None:
    """Fit on features of training images (N, C) with their labels (N,), and set the threshold by validation features.

    None where it cannot be set: fewer than `FEWEST` validation images, fewer training images than classes plus two, or
    features that are not finite.
    """
    from sklearn.covariance import ledoit_wolf  # seconds to import

    classes, place = labels.unique(return_inverse=True)
    if len(val) < FEWEST or len(train) < len(classes) + 2 or not bool(train.isfinite().all() & val.isfinite().all()):
        return None
    x = train.double()
    means = torch.zeros(len(classes), x.shape[1], dtype=torch.double).index_add_(0, place, x)
    means /= torch.bincount(place)[:, None]
    covariance, _ = ledoit_wolf((x - means[place]).numpy(), assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    if not values.max() > 0:
        return None
    scale = np.sqrt(np.maximum(values, values.max() * 1e-9))
    whitening = torch.from_numpy(vectors / scale)
    found = Familiarity(whitening, means @ whitening)
    with torch.no_grad():
        threshold = float(np.quantile(found(val).double().numpy(), 1 - SHARE, method="higher"))
    if not 0 < threshold < math.inf:
        return None
    return Familiarity(whitening / threshold, means @ whitening / threshold)
