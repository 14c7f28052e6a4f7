"""Every training on the pages and in the help composes into a checked configuration, whether a test runs it or not."""

from __future__ import annotations

import re
import shlex

import pytest

from bbframe.app.combinations import expand, with_ends
from bbframe.app.composition import composition, plain_data
from bbframe.app.help import usage
from bbframe.run.configuration import parse_configuration
from tests.pages import commands
from tests.pages.blocks import BLOCKS, command_lines

BASH = [block for block in BLOCKS if block.use == "run" and block.kind == "bash"]
LINES = [commands.without_torchrun(words) for block in BASH for words in command_lines(block)]
LINES += [shlex.split(line) for line in re.findall(r"^  (python train\.py .+)$", usage(), re.MULTILINE)]
TRAININGS = {
    " ".join(words[2:]): given
    for words in LINES
    if commands.is_training(words) and (given := commands.overrides_of(words)) is not None
}


@pytest.fixture(scope="module")
def compose():
    with composition() as compose:
        yield compose


@pytest.mark.parametrize("given", TRAININGS.values(), ids=list(TRAININGS))
def test_every_training_composes_and_passes(given, compose):
    """With nothing appended, those too that no test runs."""
    for overrides in expand(with_ends(given)):
        assert parse_configuration(plain_data(compose, overrides)).backbone.config.channels


def test_there_are_trainings_to_compose():
    assert len(TRAININGS) >= 40
