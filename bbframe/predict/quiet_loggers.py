"""Loggers of other packages that say nothing for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_SILENT = logging.CRITICAL + 1


@contextmanager
def quiet_loggers(*names: str) -> Iterator[None]:
    """Silence the loggers of these names and all below them; their levels return afterwards."""
    below = tuple(f"{name}." for name in names)
    known = [name for name in logging.root.manager.loggerDict if name.startswith(below)]
    levels = {logger: logger.level for logger in map(logging.getLogger, {*names, *known})}
    for logger in levels:
        logger.setLevel(_SILENT)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
