"""The split: every image in one part, every class in every part."""

import pytest

from bbframe.data.split import stratified

NAMES = [f"{label}/{i}.png" for label, count in enumerate((3, 10, 101)) for i in range(count)]
LABELS = [int(name[0]) for name in NAMES]


@pytest.mark.parametrize("fractions", [{"val": 0.15, "test": 0.15}, {"val": 0.2}, {"val": 0.05, "test": 0.9}, {}])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_image_is_in_one_part_and_each_class_in_all(fractions, seed):
    parts = stratified(NAMES, LABELS, fractions, seed)
    assert sorted(i for part in parts.values() for i in part) == list(range(len(NAMES)))
    for name, part in parts.items():
        assert {LABELS[i] for i in part} == {0, 1, 2}
        if name != "train":
            big = sum(LABELS[i] == 2 for i in part)
            assert big == round(fractions[name] * 101)


def test_another_seed_another_split():
    first, second = (stratified(NAMES, LABELS, {"val": 0.5}, seed)["val"] for seed in (0, 1))
    assert first != second


def test_one_more_image_moves_few_others():
    before = stratified(NAMES, LABELS, {"val": 0.2}, 0)["val"]
    after = stratified([*NAMES, "2/new.png"], [*LABELS, 2], {"val": 0.2}, 0)["val"]
    assert len(set(before) ^ set(after)) <= 2


def test_a_name_that_is_no_utf8_has_its_place():
    parts = stratified(["0/\udcff.png", "0/a.png", "0/b.png"], [0, 0, 0], {"val": 0.3}, 0)
    assert sorted(parts["train"] + parts["val"]) == [0, 1, 2]
