"""The pytest plugin: a contract test for every part that the modules named by --bbframe-plugin register.

These tests run alone unless the command line names others too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--bbframe-plugin MODULE`, which may be given several times."""
    text = "a module whose bbframe parts are tested against their contracts (may be given several times)"
    parser.addoption("--bbframe-plugin", action="append", default=[], metavar="MODULE", help=text)


class ContractItem(pytest.Item):
    """The contract test of one part."""

    def __init__(self, *, part_kind: str, part_name: str, **settings: object):
        super().__init__(**settings)  # type: ignore[arg-type]
        self.part_kind, self.part_name = part_kind, part_name

    def runtest(self) -> None:
        from bbframe.testing.contracts import check_part

        check_part(self.part_kind, {"name": self.part_name})

    def reportinfo(self) -> tuple[str, int, str]:
        return "bbframe", 0, self.name


def _alone(config: pytest.Config) -> bool:
    """Whether the command line names modules of parts, and no tests: then theirs are the only ones."""
    return bool(config.getoption("--bbframe-plugin")) and config.args_source != pytest.Config.ArgsSource.ARGS


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect nothing else where the contract tests stand alone."""
    return True if _alone(config) else None


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add a contract test for every part of the modules given."""
    modules = config.getoption("--bbframe-plugin")
    if not modules:
        return
    from bbframe.registry import from_plugins, load_plugin

    sys.path.insert(0, str(config.invocation_params.dir))  # as `python -m pytest` does
    for module in modules:
        try:
            load_plugin(module)
        except ValueError as error:
            raise pytest.UsageError(f"--bbframe-plugin: {error}") from error
    for part in from_plugins():
        if part.plugin in modules:
            name = f"bbframe {part.kind} {part.name}"
            items.append(ContractItem.from_parent(session, name=name, part_kind=part.kind, part_name=part.name))
