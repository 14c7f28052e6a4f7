"""The factory: a backbone as a configuration file describes it, checked first, then built, then loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bbframe.auto import AutoBackbone, Backbone, backbone_class, stated_config
from bbframe.backbone import BackboneConfigMixin, BackboneType
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.schema import nearest, parse


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a backbone of a configuration file comes from.

    `source` chooses between the native module and timm's of the same architecture; `checkpoint` (an id on the Hub, a
    folder or a file) and `timm_name` say which weights `pretrained` loads, at `revision`; `sha256` is what they must
    have, the one file or each by its name.
    """

    source: Literal["transformers", "timm"] = "transformers"
    checkpoint: str | None = None
    timm_name: str | None = None
    revision: str | None = None
    sha256: str | Mapping[str, str] | None = None
    pretrained: bool = False


# fields that a run may set whatever the checkpoint says: they shape no weight, or are adapted with a report
_FREE = frozenset(
    "num_channels drop_path_rate dropout_prob hidden_dropout_prob attention_probs_dropout_prob initializer_range "
    "layer_scale_init_value layerscale_value out_features out_indices out_strides".split()
)


def check_backbone(options: Mapping[str, Any]) -> tuple[Source, BackboneConfigMixin]:
    """A configuration file's data as its source and its config, nothing built or loaded; ValueError when wrong.

    Nulls stand for what the config's class, or the checkpoint, says.
    """
    backbone = backbone_class(str(options.get("model_type", "")))
    where = backbone.config_class.model_type
    from_timm = backbone.backbone_type is BackboneType.TIMM  # by its own name, with no native module
    names = {"revision", "sha256", "pretrained"} if from_timm else {field.name for field in dataclasses.fields(Source)}
    known = names | backbone.config_class.option_names()
    for key in options:
        if key not in known | {"model_type"}:
            raise ValueError(f"{where}: unknown option {key!r}{nearest(key, known)}")
    source = parse(Source, {key: value for key, value in options.items() if key in names}, where)
    config = backbone.config_class.from_dict(_given(options))
    if source.source == "timm" and source.timm_name is None:
        raise ValueError(f"{where}: source=timm needs timm_name, the name that timm gives this network")
    if source.source == "transformers" and source.pretrained and source.checkpoint is None and not from_timm:
        raise ValueError(f"{where}: pretrained=true needs a checkpoint: an id on the Hub, a folder or a file")
    return source, config


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration file says about the config itself."""
    names = {field.name for field in dataclasses.fields(Source)}
    return {key: value for key, value in options.items() if key not in names and value is not None}


def make_backbone(options: Mapping[str, Any]) -> Backbone:
    """The backbone that a configuration file's data describes, its weights loaded when `pretrained` says so.

    Raises ValueError when the file states an architecture's field otherwise than the checkpoint does.
    """
    source, config = check_backbone(options)
    if source.source == "timm" or config.model_type == "timm_backbone":
        timm: Any = backbone_class("timm_backbone")
        return timm.from_source(source, config)
    if not source.pretrained:
        return AutoBackbone.from_config(config)
    assert source.checkpoint is not None
    files = Checkpoint(source.checkpoint, source.revision, sha256=source.sha256)
    data = files.json("config.json")
    if data is None:
        return AutoBackbone.from_pretrained(
            source.checkpoint, revision=source.revision, sha256=source.sha256, config=config
        )
    field = type(config).attribute_map
    given = {field.get(key, key): value for key, value in _given(options).items() if key != "model_type"}
    backbone, stated, _ = stated_config(files.source, data, backbone_class(config.model_type))
    theirs = backbone.config_class.from_dict(stated)
    settled = {field.get(key, key) for key in stated} if data["model_type"] in backbone.hosts else set(given)
    free = _FREE | backbone.adaptable
    clashes = [
        f"{key}={getattr(theirs, key)!r} (here {getattr(config, key)!r})"
        for key in given
        if key in settled - free and getattr(theirs, key) != getattr(config, key)
    ]
    if clashes:
        raise ValueError(
            f"{config.model_type}: the checkpoint {files.source} has {', '.join(clashes)}; choose the variant of that "
            "checkpoint, or set these keys to null to take its values"
        )
    fields = {key: value for key, value in given.items() if key not in settled - free}
    if not {"out_features", "out_indices", "out_strides"} & set(given):
        theirs.select()  # the last stage, as the file says by its silence; a `config.json` may list others
        fields["out_features"] = theirs.out_features
    return AutoBackbone.from_pretrained(
        source.checkpoint, revision=files.revision, sha256=source.sha256, expect=backbone, **fields
    )
