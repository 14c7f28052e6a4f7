"""Classify a picture with an exported classifier: python onnx_classifier.py model.onnx photo.jpg

The file is one that `bbframe export run=... format=onnx preprocessing=true` wrote. onnxruntime, numpy and PIL suffice.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = json.loads(session.get_modelmeta().custom_metadata_map["bbframe.json"])
picture = np.asarray(Image.open(sys.argv[2]).convert("RGB"))  # (H, W, 3) uint8
images = np.ascontiguousarray(picture.transpose(2, 0, 1)[None])  # (1, 3, H, W)
probabilities = session.run(["probabilities"], {"images": images})[0][0]
for index in probabilities.argsort()[::-1][:3]:
    print(f"{metadata['class_names'][index]}\t{probabilities[index]:.6f}")
