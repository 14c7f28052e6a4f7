"""A backbone's config inside the `config.json` of a bigger model, under the key `backbone_config`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bbframe.config import BackboneConfigMixin


def nested_config(
    config_class: type[BackboneConfigMixin], free: Iterable[str] = (), usual: Mapping[str, Any] | None = None
) -> Callable[[Mapping[str, Any]], dict[str, Any] | None]:
    """The function that a `Host` reads such a `config.json` with: all fields of the backbone, defaults included.

    It leaves out the `free` fields, which no weight depends on, and returns None for another backbone. `usual` is the
    backbone's data where the file names no backbone at all.
    """

    def read(data: Mapping[str, Any]) -> dict[str, Any] | None:
        inner = data.get("backbone_config")
        if inner is None and not data.get("backbone"):
            inner = usual
        if not isinstance(inner, Mapping) or inner.get("model_type") != config_class.model_type:
            return None
        left_out = {*free, *config_class.foreign_keys(inner)}
        config = config_class.from_dict({key: value for key, value in inner.items() if key not in left_out})
        return {**inner, **{key: value for key, value in config.to_dict().items() if key not in left_out}}

    return read
