"""The public interface is the one that tests/public_api.txt lists: a removal or a changed signature is noticed.

`python tests/test_public_api.py` writes the list again, after a change that is meant and stands in CHANGELOG.md.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bbframe
import bbframe.fast
import bbframe.testing
from bbframe import registry
from bbframe.app.cli import COMMANDS
from bbframe.auto import backbone_class
from bbframe.predict.image_predictor import ImagePredictor
from bbframe.predict.image_results import BoxResult, ClassResult
from bbframe.predict.trained_network import TrainedNetwork

# what public functions return, beside the names of bbframe itself
RETURNED = (TrainedNetwork, ImagePredictor, ClassResult, BoxResult)
LIST = Path(__file__).with_name("public_api.txt")


def public_api() -> list[str]:
    """A line for each public name: its kind, its path, and how it is called."""
    lines = [line for name in bbframe.__all__ for line in described(f"bbframe.{name}", getattr(bbframe, name))]
    for module in (bbframe.fast, bbframe.testing):
        for name in module.__all__:
            lines += described(f"{module.__name__}.{name}", getattr(module, name))
    for value in RETURNED:
        lines += described(f"{value.__module__}.{value.__name__}", value)
    for name in registry.names("backbone"):
        backbone = backbone_class(name)
        if backbone.__module__.startswith("bbframe."):
            lines.append(f"class bbframe.{backbone.__name__}(config)")
            lines += described(f"bbframe.{backbone.config_class.__name__}", backbone.config_class)
    lines += [f"kind {kind}" for kind in registry.KINDS]
    lines += [f"part {kind} {name}" for kind in registry.KINDS for name in registry.names(kind) if ours(kind, name)]
    lines += [f"command bbframe {name}" for name in ("train", *COMMANDS)]
    return sorted(set(lines))


def ours(kind: str, name: str) -> bool:
    return registry.find(kind, name).plugin is None


def described(path: str, value: Any) -> Iterator[str]:
    """The lines of a class with its public methods, of a function, or of a value."""
    if inspect.isclass(value):
        yield f"class {path}{called(value)}" if callable_as_class(value) else f"class {path}"
        for name, member in sorted(vars(value).items()):
            function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
            if name[0] != "_" and inspect.isfunction(function):
                yield f"method {path}.{name}{called(function)}"
            elif name[0] != "_" and isinstance(member, property):
                yield f"property {path}.{name}"
    elif callable(value):
        yield f"function {path}{called(value)}"
    else:
        yield f"value {path}"


def callable_as_class(value: type) -> bool:
    made = dataclasses.is_dataclass(value) or bool({"__init__", "__new__"} & set(vars(value)))
    return made and not issubclass(value, enum.Enum)


def called(function: Any) -> str:
    """How something is called: its parameters with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.Signature(plain)))


def test_the_public_interface_is_the_listed_one():
    found, listed = set(public_api()), set(LIST.read_text(encoding="utf-8").splitlines())
    removed, added = sorted(listed - found), sorted(found - listed)
    assert not removed, "removed or changed; is that meant? `python tests/test_public_api.py` writes the list again"
    assert not added, "new; `python tests/test_public_api.py` writes the list again"


def test_a_removal_and_a_changed_signature_are_noticed(monkeypatch):
    listed = set(LIST.read_text(encoding="utf-8").splitlines())

    def list_backbones(kind):
        """With a parameter that the public one does not have."""

    monkeypatch.setattr("bbframe.auto.list_backbones", list_backbones)
    monkeypatch.setattr(bbframe, "__all__", [name for name in bbframe.__all__ if name != "Stage"])
    assert {line.partition("(")[0] for line in listed - set(public_api())} >= {
        "function bbframe.list_backbones",
        "class bbframe.Stage",
    }


if __name__ == "__main__":
    LIST.write_text("\n".join(public_api()) + "\n", encoding="utf-8")
