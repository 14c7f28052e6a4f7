"""Folders of images for every test that asks for one."""

import pytest

from tests.data.helpers import write


@pytest.fixture
def folder(tmp_path):
    """A function that fills a folder: folder({"train/cat": 3, "train/dog": 2}) -> its root."""

    def fill(counts, suffix="png"):
        for place, count in counts.items():
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                write(tmp_path / place / f"{i}.{suffix}", shade=100 * len(place) + i)
        return tmp_path

    return fill
