"""bbframe: any vision backbone behind one contract. Attributes are imported when they are first asked for."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from bbframe.registry import reserve

__version__ = "0.1.0"

_HOMES = {
    "AutoBackbone": "bbframe.auto",
    "list_backbones": "bbframe.auto",
    "load": "bbframe.predict.network_loading",
    "features": "bbframe.extraction.image_features",
    "make_backbone": "bbframe.factory",
    "register": "bbframe.registry",
    "Backbone": "bbframe.backbone",
    "BackboneConfigMixin": "bbframe.config",
    "BackboneMixin": "bbframe.backbone_mixin",
    "BackboneOutput": "bbframe.backbone_mixin",
    "BackboneType": "bbframe.backbone_mixin",
    "Stage": "bbframe.selection",
    "KeyMap": "bbframe.keymap",
    "LoadReport": "bbframe.hub.strict_loading",
    "Preprocessing": "bbframe.preprocessing",
}
__all__ = ["__version__", *_HOMES]

# our architectures, by the names of their files: no other class can take these names, imported or not
_MODELS = {info.name: f"bbframe.models.{info.name}" for info in pkgutil.iter_modules([f"{__path__[0]}/models"])}
_MODELS["timm"] = "bbframe.timm_backbone.backbone"
reserve("backbone", _MODELS)


def __getattr__(name: str) -> Any:
    """One of the names above, or `<Architecture>Backbone` and `<Architecture>Config` from that architecture's file."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    files = {file.removesuffix("_backbone").replace("_", ""): module for file, module in _MODELS.items()}
    for suffix in ("Backbone", "Config"):
        if name.endswith(suffix):
            architecture = name.removesuffix(suffix).removesuffix("Backbone").lower()
            module = importlib.import_module(files[architecture]) if architecture in files else None
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'bbframe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
