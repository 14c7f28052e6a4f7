"""Features are found again by the content of images, survive kills and damage, and never mix."""

import numpy as np
import pytest

from bbframe.extraction.feature_store import FeatureStore, features_root, trim_features

KEYS = [("stage1", "mean"), ("stage2", "mean"), ("stage2", "class_token")]


def digest(number):
    return bytes([number % 256, number // 256]) * 16


def columns(numbers, counts=None):
    counts = counts or [1] * len(numbers)
    rows = [number + row / 10 for number, count in zip(numbers, counts, strict=True) for row in range(count)]
    return {
        key: np.array(rows, np.float32)[:, None] * np.ones(width, np.float32)
        for key, width in zip(KEYS, (2, 3, 3), strict=True)
    }


def test_rows_come_back_in_the_order_asked_for_over_several_files(tmp_path):
    store = FeatureStore(tmp_path, KEYS)
    store.add([digest(1), digest(2)], [1, 1], columns([1, 2]))
    store.add([digest(3)], [1], columns([3]))
    assert store.read(KEYS[0], [digest(3), digest(1), digest(2)])[:, 0].tolist() == [3, 1, 2]
    again = FeatureStore(tmp_path, KEYS)
    assert again.read(KEYS[1], [digest(2), digest(3)]).tolist() == [[2, 2, 2], [3, 3, 3]]
    assert digest(4) not in again


def test_an_image_may_have_several_rows_or_none(tmp_path):
    store = FeatureStore(tmp_path, KEYS)
    store.add([digest(1), digest(2), digest(3)], [2, 0, 1], columns([1, 2, 3], [2, 0, 1]))
    found = FeatureStore(tmp_path, KEYS).read(KEYS[0], [digest(3), digest(2), digest(1)])
    np.testing.assert_allclose(found[:, 0], [3, 1, 1.1], rtol=1e-6)
    assert store.rows(digest(2)) == 0


def test_a_file_that_is_damaged_is_removed_and_the_others_stay(tmp_path):
    store = FeatureStore(tmp_path, KEYS)
    store.add([digest(1)], [1], columns([1]))
    store.add([digest(2)], [1], columns([2]))
    path = store.places[digest(1)][0]
    path.write_bytes(path.read_bytes()[:-7])
    again = FeatureStore(tmp_path, KEYS)
    assert digest(1) not in again
    assert digest(2) in again
    assert not path.exists()


def test_what_a_killed_process_left_half_written_is_no_file(tmp_path):
    (tmp_path / ".1-x.safetensors.part").write_bytes(b"half")
    assert not FeatureStore(tmp_path, KEYS).places
    assert not list(tmp_path.iterdir())


def test_the_networks_asked_for_least_recently_go_first(tmp_path):
    import os

    for age, name in enumerate(("new", "old", "kept")):
        store = FeatureStore(tmp_path / name, KEYS)
        store.add([digest(1)], [1], columns([1]))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    size = sum(file.stat().st_size for file in (tmp_path / "new").iterdir())
    trim_features(tmp_path, keep=[tmp_path / "kept"], most=2 * size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "new"]


@pytest.mark.parametrize(
    ("variables", "end"),
    [({"BBFRAME_CACHE": "/x"}, "/x/features"), ({"XDG_CACHE_HOME": "/y"}, "/y/bbframe/features")],
)
def test_the_environment_says_where_features_are_kept(monkeypatch, variables, end):
    for name in ("BBFRAME_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(features_root()) == end
