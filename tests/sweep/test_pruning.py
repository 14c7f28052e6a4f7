"""A run that its search gives up ends there, is not tested, and is not done again."""

from __future__ import annotations

import pytest

from bbframe.app.composition import composition, plain_data
from bbframe.run.configuration import parse_configuration
from bbframe.run.training_run import run
from bbframe.sweep.jobs import read_result
from bbframe.sweep.pruning import PrunedBySearch
from tests.run.helpers import TINY


class Impatient:
    """A search that gives up its trials in the second epoch."""

    def __init__(self):
        self.told = []

    def stops(self, number, epoch, value):
        self.told.append((number, epoch))
        return epoch == 2


@pytest.mark.long
def test_a_run_that_is_given_up_ends_there_and_is_not_tested(tmp_path):
    with composition() as compose:
        config = plain_data(compose, [*TINY, "trainer.max_epochs=5", "trainer.limit_train_batches=2"])
    search = Impatient()
    found = run(parse_configuration(config), config, [], tmp_path, callbacks=[PrunedBySearch(search, 7)])
    assert search.told == [(7, 1), (7, 2)]
    assert (found["status"], found["epochs"], found["test"]) == ("pruned", 2, {})
    assert found["val"]["accuracy"] >= 0
    assert read_result(tmp_path)["status"] == "pruned"
