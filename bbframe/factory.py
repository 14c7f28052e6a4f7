"""A backbone as a configuration file describes it: checked first, then built, then loaded."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from bbframe.auto import AutoBackbone, backbone_class, ready
from bbframe.backbone import Backbone
from bbframe.backbone_mixin import BackboneType
from bbframe.config import SELECTION, BackboneConfigMixin
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.hub.stated_config import stated_config
from bbframe.schema import Length, Name, Text, nearest, parse

Digest = Annotated[str, Text("64 hexadecimal digits", "[0-9a-fA-F]{64}")]
Revision = Annotated[str, Text("a commit, branch or tag", r"(?!.*\.\.)[^\s~^:?*\[\\]{1,255}")]  # as Git names them


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a backbone of a configuration file comes from.

    `source` chooses between the native module and timm's of the same architecture. `checkpoint` (an id on the Hub, a
    folder, a file, or a run's own best.ckpt) and `timm_name` name the weights that `pretrained` loads, at `revision`;
    `sha256` is the digest that the weights file must have, or each file's by its name. `fast` allows faster
    arithmetic.
    """

    source: Literal["transformers", "timm"] = "transformers"
    checkpoint: Name | None = None
    timm_name: Name | None = None
    revision: Revision | None = None
    sha256: Digest | Annotated[Mapping[str, Digest], Length(1, 1000)] | None = None
    pretrained: bool = False
    fast: bool = True


@dataclass(frozen=True, kw_only=True)
class BackboneOptions:
    """A backbone of a configuration file, checked.

    `given` are the fields of `config` that the file sets, as it sets them; the checkpoint supplies the others.
    """

    source: Source
    config: BackboneConfigMixin
    given: Mapping[str, Any]

    @property
    def network_config(self) -> BackboneConfigMixin:
        """The config of the network that is built: timm's, if `source` is timm."""
        if self.source.source != "timm":
            return self.config
        config_class: Any = backbone_class("timm_backbone").config_class
        return config_class.of_native(self.config, self.source.timm_name)

    def without_weights(self) -> BackboneOptions:
        """The same backbone, freshly initialised."""
        return dataclasses.replace(self, source=dataclasses.replace(self.source, pretrained=False))

    def with_strides(self, out_strides: list[int]) -> BackboneOptions:
        """The same backbone with the maps of these strides selected; ValueError when it has no such map."""
        config = copy.deepcopy(self.config)
        config.select(out_strides=out_strides)
        return dataclasses.replace(self, config=config, given={**self.given, "out_strides": out_strides})

    def completed(self, config: Mapping[str, Any]) -> BackboneOptions:
        """The same backbone with the fields that the file leaves open taken from a config's data, if of its kind.

        The selection stays the file's. Raises ValueError when the two do not fit together.
        """
        if config["model_type"] != self.config.model_type:
            return self
        supplied = {key: value for key, value in config.items() if key not in SELECTION}
        return dataclasses.replace(self, config=type(self.config).from_dict({**supplied, **self.given}))


# fields that a run may set whatever the checkpoint says: they shape no weight, or are adapted with a report
_FREE = frozenset(
    "num_channels drop_path_rate dropout_prob hidden_dropout_prob attention_probs_dropout_prob initializer_range "
    "attention_dropout pos_embed_shift pos_embed_jitter pos_embed_rescale cae_init_values "
    "layer_scale_init_value layerscale_value out_features out_indices out_strides".split()
)


def check_backbone(options: Mapping[str, Any]) -> BackboneOptions:
    """Check a configuration file's data; nothing is built or loaded. Raises ValueError for whatever is wrong in it.

    Nulls stand for what the config's class, or the checkpoint, says.
    """
    backbone = backbone_class(str(options.get("model_type", "")))
    where = backbone.config_class.model_type
    from_timm = backbone.backbone_type is BackboneType.TIMM  # by timm's name, with no native module
    sources = {field.name for field in dataclasses.fields(Source)}
    names = {"revision", "sha256", "pretrained"} if from_timm else sources
    known = (names | backbone.config_class.option_names()) - {"use_pretrained_backbone"}  # here it is `pretrained`
    for key in options:
        if key not in known | {"model_type"}:
            raise ValueError(f"{where}: unknown option {key!r}{nearest(key, known)}")
    source = parse(Source, {key: value for key, value in options.items() if key in names}, where)
    ours = {key: value for key, value in options.items() if key not in {*sources, "model_type"} and value is not None}
    given = backbone.config_class.unaliased(ours)
    config = backbone.config_class.from_dict(ours)
    if source.source == "timm" and source.timm_name is None:
        raise ValueError(f"{where}: source=timm needs timm_name, the name that timm gives this network")
    if source.source == "transformers" and source.pretrained and source.checkpoint is None and not from_timm:
        raise ValueError(f"{where}: pretrained=true needs backbone.checkpoint=..., an id on the Hub, a folder or file")
    return BackboneOptions(source=source, config=config, given=given)


def make_backbone(options: BackboneOptions | Mapping[str, Any]) -> Backbone:
    """The backbone of checked options, or of a configuration file's data; its weights loaded if `pretrained`.

    Raises ValueError when the file states an architecture's field otherwise than the checkpoint does.
    """
    checked = options if isinstance(options, BackboneOptions) else check_backbone(options)
    source, config = checked.source, checked.network_config
    if not source.pretrained:
        return AutoBackbone.from_config(config, fast=source.fast)
    backbone: Any = backbone_class(config.model_type)
    if backbone.backbone_type is BackboneType.TIMM:
        net = backbone.from_timm(config, {"revision": source.revision, "sha256": source.sha256})
    else:
        net = _pretrained(backbone, checked)
    return ready(net, source.fast)


def _pretrained(backbone: type[Backbone], checked: BackboneOptions) -> Backbone:
    source, given, config = checked.source, checked.given, checked.config
    assert source.checkpoint is not None
    files = Checkpoint(source.checkpoint, source.revision, sha256=source.sha256)
    if files.config is None:
        return backbone.from_files(files, config)
    stated = stated_config(f"{files.source}: config.json", files.config, backbone)
    own = {key: value for key, value in stated.fields.items() if key not in SELECTION}  # the file's silence on the
    stated = stated._replace(fields=own)  # selection means the last stage, whatever the checkpoint lists
    fixed = (stated.settles or frozenset(given)) - _FREE - backbone.adaptable

    failure = None
    try:
        theirs = stated.config({key: value for key, value in given.items() if key not in fixed})
    except ValueError as error:  # a clash is rather the cause than, say, that a selected stage is missing
        theirs, failure = stated.config({}), error
    clashes = [
        f"{key}={getattr(theirs, key)!r} (here {getattr(config, key)!r})"
        for key in given
        if key in fixed and getattr(theirs, key) != getattr(config, key)
    ]
    if clashes:
        raise ValueError(
            f"{config.model_type}: the checkpoint {files.source} has {', '.join(clashes)}; choose the variant of "
            "that checkpoint, or set these keys to null to take its values"
        )
    if failure is not None:
        raise failure
    return backbone.from_files(files, theirs, stated)
