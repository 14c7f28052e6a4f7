"""bbframe: any vision backbone behind one contract. Attributes are imported when they are first asked for."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AutoBackbone": "bbframe.auto",
    "Backbone": "bbframe.auto",
    "list_backbones": "bbframe.auto",
    "make_backbone": "bbframe.factory",
    "register": "bbframe.auto",
    "BackboneConfigMixin": "bbframe.backbone",
    "BackboneMixin": "bbframe.backbone",
    "BackboneOutput": "bbframe.backbone",
    "BackboneType": "bbframe.backbone",
    "Stage": "bbframe.backbone",
    "KeyMap": "bbframe.keymap",
    "LoadReport": "bbframe.hub.loading",
    "Preprocessing": "bbframe.preprocessing",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """One of the names above, or `<Architecture>Backbone` and `<Architecture>Config` from that architecture's file."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    for suffix in ("Backbone", "Config"):
        if name.endswith(suffix):
            file = _model_file(name.removesuffix(suffix).removesuffix("Backbone"))
            module = importlib.import_module(file) if file else None
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'bbframe' has no attribute {name!r}")


def _model_file(architecture: str) -> str | None:
    """The module of an architecture: its file has its name in lower case, with underscores where they read better."""
    import pkgutil

    import bbframe.models

    files = {info.name.replace("_", ""): info.name for info in pkgutil.iter_modules(bbframe.models.__path__)}
    name = architecture.lower()
    if name == "timm":
        return "bbframe.timm_backbone.backbone"
    return f"bbframe.models.{files[name]}" if name in files else None


def __dir__() -> list[str]:
    return sorted(__all__)
