"""Write the config files that an installed transformers saves, into <its version>.json beside this file.

    python tests/hub/generations/make.py

For each architecture a classifier's config, a backbone's with names and one with indices, and the configs of bigger
models that hold one; the key of each says which. What a version does not know is left out. Sizes are the defaults.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import transformers
from transformers import AutoConfig

FIRST = "beit bit convnext convnextv2 dinat dinov2 focalnet maskformer-swin nat resnet swin swinv2 vitdet"
LATER = (
    "dinov2_with_registers dinov3_vit dinov3_convnext hiera hgnet_v2 pvt_v2 rt_detr_resnet pixio vitpose_backbone "
    "lw_detr_vit rf_detr_dinov2"
)
KINDS = {
    "classifier": {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}},
    "names": {"out_features": ["stage2", "stage4"]},
    "indices": {"out_indices": [1, 2, 3]},
    "both": {"out_features": ["stage1", "stage3"], "out_indices": [1, 3]},
}
HOSTS = {
    "maskformer": {"backbone_config": ("swin", {"depths": [2, 2, 18, 2], "out_features": ["stage1", "stage4"]})},
    "rt_detr": {},
    "rt_detr_v2": {},
    "d_fine": {},
    "rf_detr": {},
    "lw_detr": {},
    "vitpose": {"backbone_config": ("vitpose_backbone", {"out_indices": [4]})},
}


def config(model_type, **fields):
    """The config of a model_type; None where this version knows none, or refuses the fields."""
    try:
        return AutoConfig.for_model(model_type, **fields)
    except Exception:  # whatever a version raises about what it does not know
        return None


def saved(found, architecture):
    """The data of a config as a model of this version saves it."""
    found.architectures = [architecture]
    setattr(found, "dtype" if transformers.__version__ >= "5" else "torch_dtype", "float32")
    with TemporaryDirectory() as folder:
        found.save_pretrained(folder)
        return json.loads((Path(folder) / "config.json").read_text())


files = {}
for model_type in f"{FIRST} {LATER}".split():
    for kind, fields in KINDS.items():
        if kind != "classifier" and not hasattr(config(model_type), "out_features"):
            continue  # no backbone yet
        if (found := config(model_type, **fields)) is not None:
            stem = type(found).__name__.removesuffix("Config").removesuffix("Backbone")
            ending = "ForImageClassification" if kind == "classifier" else "Backbone"
            files[f"{model_type}, {kind}"] = saved(found, stem + ending)
for model_type, parts in HOSTS.items():
    inner = {key: config(kind, **fields) for key, (kind, fields) in parts.items()}
    if all(part is not None for part in inner.values()) and (found := config(model_type, **inner)) is not None:
        files[f"{model_type}, whole"] = saved(found, type(found).__name__.removesuffix("Config"))
lines = [f"{json.dumps(key)}: {json.dumps(data, sort_keys=True)}" for key, data in files.items()]
target = Path(__file__).with_name(f"{transformers.__version__}.json")
target.write_text("{\n" + ",\n".join(lines) + "\n}\n")
print(f"{len(files)} configs in {target}")
