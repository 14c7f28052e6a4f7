"""One thread a process: the networks of the tests are tiny, and the results must not depend on the machine's cores."""

import logging

import pytest
import torch

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
