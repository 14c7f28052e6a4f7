"""A hundred thousand images pass through with little memory: features stream to disk, scores go in blocks."""

import json
import subprocess
import sys

import pytest

LIMIT = 4 * 2**30

LARGE = """
import json, resource, sys
from pathlib import Path
import numpy as np
import torch
from bbframe.extraction.feature_set import ImageChoice, extract
from bbframe.extraction.feature_store import FeatureStore
from bbframe.rank.gathering import Gathered, CommonRows
from bbframe.rank.backbone_ranking import score_backbone
from bbframe.rank.resampling import Resampling

ROWS, STAGES, CHANNELS, CLASSES = 100_000, 12, 192, 20

class Net:
    device = torch.device("cpu")

class Pooling:
    net = Net()
    keys = [(f"stage{i}", "mean") for i in range(STAGES)]
    places = {stage: i for i, (stage, _) in enumerate(keys)}
    strides = channels = dict.fromkeys(places, CHANNELS)

    def images(self, pixels):
        place = pixels[:, 0, 0, 0].long()
        out = {}
        for i, key in enumerate(self.keys):
            x = torch.randn(len(place), CHANNELS, generator=torch.Generator().manual_seed(int(place[0]) * 100 + i))
            x[torch.arange(len(place)), place % CLASSES] += i / 4
            out[key] = x
        return out

class Images:
    labels = np.arange(ROWS) % CLASSES

class Data:
    parts = {"train": Images()}

    def loader_of(self, part, indices):
        for start in range(0, len(indices), 500):
            index = torch.tensor(indices[start : start + 500])
            yield {"image": index.float().view(-1, 1, 1, 1), "index": index}

pooling = Pooling()
store = FeatureStore(Path(sys.argv[1]), pooling.keys)
digests = [i.to_bytes(32, "big") for i in range(ROWS)]
found = extract(pooling, Data(), ImageChoice("train", list(range(ROWS)), digests), store)
assert found.computed == ROWS
extracted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
rows = CommonRows(found.images, found.labels, None, CLASSES)
scored = score_backbone(Gathered(None, None, found, {}), rows, Resampling(rows.images))
assert not scored.failure, scored.failure
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"extracted": extracted, "peak": peak, "stages": len(scored.stages), "chosen": scored.choice.stages}))
"""


@pytest.mark.slow
def test_a_hundred_thousand_images_of_twelve_stages_need_less_than_four_gib(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, check=False, timeout=3600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["stages"] == 12
    assert found["extracted"] < found["peak"] < LIMIT, found
