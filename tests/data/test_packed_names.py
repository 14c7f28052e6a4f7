"""Names in one buffer are what a list of them is."""

import pickle

import numpy as np
import pytest

from bbframe.data.packed_names import PackedNames

NAMES = ["a/0.jpg", "", "b/Mädchen 1.png", "c/\udcff\udc80.jpg", "日本/語.tif", "lone \ud800.bmp"]


def test_names_come_back_one_by_one_and_from_the_end():
    packed = PackedNames.of(iter(NAMES))
    assert [packed[i] for i in range(len(packed))] == NAMES == list(packed)
    assert [packed[-i - 1] for i in range(len(packed))] == NAMES[::-1]
    for beyond in (len(NAMES), -len(NAMES) - 1):
        with pytest.raises(IndexError):
            packed[beyond]


def test_parts_are_chosen_by_places_and_slices():
    packed = PackedNames.of(NAMES)
    assert packed.select([4, 0, 4]) == [NAMES[4], NAMES[0], NAMES[4]]
    assert packed.select(np.array([], np.int64)) == []
    assert packed[1:5:2] == NAMES[1:5:2]
    assert packed[::-1] == NAMES[::-1]
    assert packed[1:3].offsets[0] == 0  # it holds no more than its own bytes


def test_it_equals_sequences_of_the_same_names_alone():
    packed = PackedNames.of(NAMES)
    assert packed == NAMES
    assert packed == tuple(NAMES)
    assert packed == PackedNames.of(NAMES)
    assert packed != NAMES[:-1]
    assert packed != [*NAMES[:-1], "other"]
    assert packed != "".join(NAMES)


def test_an_array_serves_as_content_and_it_travels_to_a_worker():
    packed = PackedNames.of(NAMES)
    array = PackedNames(np.frombuffer(packed.content, np.uint8), packed.offsets)
    assert array == NAMES
    assert array[2] == NAMES[2]
    assert array.select([3, 2]) == [NAMES[3], NAMES[2]]
    assert pickle.loads(pickle.dumps(packed)) == NAMES


def test_it_costs_about_the_bytes_of_its_names():
    names = [f"class_{i % 1000:04}/image_{i:07}.jpg" for i in range(100_000)]
    packed = PackedNames.of(names)
    assert len(packed.content) + packed.offsets.nbytes <= sum(map(len, names)) + 8 * (len(names) + 1)
