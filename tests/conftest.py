"""One thread a process: the networks of the tests are tiny, and the results must not depend on the machine's cores."""

import logging
import os

import pytest
import torch

from tests.run.helpers import TINY

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def loggers():
    """A logging configuration of one test, such as hydra.verbose=true or hydra/job_logging=disabled, ends with it."""
    yield
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.disabled = False
            for handler in [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]:
                logger.removeHandler(handler)
    logging.root.setLevel(logging.WARNING)


@pytest.fixture(autouse=True, scope="session")
def kept_features(tmp_path_factory):
    """Features are kept in a folder of the tests, never in the user's."""
    before = os.environ.get("BBFRAME_CACHE")
    os.environ["BBFRAME_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("BBFRAME_CACHE")
    if before is not None:
        os.environ["BBFRAME_CACHE"] = before


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """The folder of a run on the digits, one epoch of a tiny backbone; tests look at it and leave it alone."""
    from bbframe.app import train

    place = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert train.main([*TINY, "trainer.max_epochs=1"]) == 0
    (metrics,) = place.rglob("metrics.json")
    return metrics.parent
