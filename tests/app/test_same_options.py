"""All processes of a run are given the same options; where the images are is each machine's own affair."""

from __future__ import annotations

import pytest

from bbframe.app.composition import composition, plain_data
from bbframe.app.same_options import check_same, options_of

FIRST = ["data=image_folder", "data.root=here"]


@pytest.fixture(scope="module")
def options():
    with composition() as compose:
        yield lambda *words: options_of(plain_data(compose, [*FIRST, *words]))


@pytest.mark.parametrize("other", ["data.root=there", "data.num_workers=3", "output_dir=elsewhere", "data.timeout=9"])
def test_what_is_a_machines_own_may_differ(options, other):
    check_same([options(), options(other)])


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("optim.lr=0.5", "optim.lr=0.5 in process 2"),
        ("trainer.max_epochs=1", "trainer.max_epochs=1 in process 2"),
        ("data.batch_size=7", "data.batch_size=7 in process 2"),
        ("seed=5", "seed=5 in process 2"),
        ("data.augment=null", "data.augment.* in process 2"),
        ("backbone=resnet50", r"backbone.* in process 2 and .* in the first; start all processes with one command"),
    ],
)
def test_other_options_in_one_process_are_named(options, other, told):
    with pytest.raises(ValueError, match=told):
        check_same([options(), options(), options(other)])
