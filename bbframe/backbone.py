"""Native backbones: the contract of `backbone_mixin`, with weights from and to the Hub."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from bbframe.backbone_mixin import BackboneMixin
from bbframe.config import BackboneConfigMixin
from bbframe.hub.adapted_tables import adapt_positions
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.hub.client import first_line
from bbframe.hub.foreign_arguments import SAVING, without_foreign
from bbframe.hub.late_draws import LateDraws
from bbframe.hub.saving import save_checkpoint
from bbframe.hub.state_dict import StateDict
from bbframe.hub.stated_config import StatedConfig, plain_config, stated_beside, stated_config
from bbframe.hub.strict_loading import LoadReport, adapt_input_channels, load_weights, read_preprocessing
from bbframe.keymap import Host, KeyMap
from bbframe.schema import nearest

B = TypeVar("B", bound="Backbone")


class Backbone(BackboneMixin, nn.Module):
    """Base of the native backbones: the contract, with weights from and to the Hub's layout through `keys`."""

    keys: KeyMap  # of the class, or of an instance whose configuration has other names
    hosts: ClassVar[Mapping[str, Host]] = {}  # bigger models whose checkpoints hold this backbone, by model_type
    originals: Sequence[KeyMap] = ()  # the names of the authors' own checkpoints, which have no config.json
    # patterns of names that transformers gives weights in memory alone, and what stands for them in its files; tensors
    # that get one name are parts of one, in the order of the rows
    in_memory: ClassVar[Sequence[tuple[str, str]]] = ()
    adaptable: ClassVar[frozenset[str]] = frozenset()  # fields that `adapt_weight` can make up for
    load_report: LoadReport | None = None

    @classmethod
    def from_pretrained(
        cls: type[B],
        checkpoint: str | os.PathLike[str] | Checkpoint,
        *,
        config: Any = None,
        revision: str | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        token: str | None = None,
        sha256: str | Mapping[str, str] | None = None,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
        **fields: Any,
    ) -> B:
        """This class with a checkpoint's weights, config and preprocessing: plain PyTorch, in eval mode.

        The arguments are those of `AutoBackbone.from_pretrained`, which also makes the network faster. Raises
        ValueError for the checkpoint of another architecture, and for anything that does not fit.
        """
        asked = one_dtype(dtype, torch_dtype)
        cast = None if asked == "auto" else checked_dtype(asked)
        refuse_attention(attn_implementation)
        fields = without_foreign(cls.config_class.model_type, fields)
        cls.config_class.refuse_unknown(fields)
        hub = {"cache_dir": cache_dir, "local_files_only": local_files_only, "token": token, "sha256": sha256}
        net = cls._loaded(checkpoint, config, fields, {"revision": revision, **hub})
        if asked == "auto" and net.load_report is not None:
            cast = net.load_report.dtype
        return net if cast is None else net.to(cast)

    @classmethod
    def _loaded(cls: type[B], checkpoint: Any, config: Any, fields: Mapping[str, Any], hub: Mapping[str, Any]) -> B:
        files = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint, **hub)
        if config is None:
            stated = stated_config(f"{files.source}: config.json", files.needed_config(), cls)
            return cls.from_files(files, stated.config(fields), stated)
        given = stated_config("config", plain_config(config), cls)
        if isinstance(config, (Mapping, BackboneConfigMixin)):
            cls.config_class.refuse_unknown(given.unknown)
        return cls.from_files(files, given.config(fields))

    @classmethod
    def from_files(
        cls: type[B], files: Checkpoint, config: BackboneConfigMixin, stated: StatedConfig | None = None
    ) -> B:
        """A backbone of this config with the weights and the preprocessing of an opened checkpoint, in eval mode.

        `stated` says by which names its weights go; without it, the table that knows most of the names is used.
        """
        beside = stated or stated_beside(files, cls)
        config = copy.deepcopy(config)
        made_with = None if beside is None else beside.made_with(config)
        adapted = None if made_with is None else cls.adapt_config(config, made_with)
        try:
            with LateDraws():  # draws only the weights that the checkpoint lacks
                net = cls(config)
                hosts = [host.keys for host in cls.hosts.values()] if stated is None else []
                tables = [net.keys, *hosts] if stated is None or stated.keys is None else [stated.keys]
                net.load_report = report = load_weights(net, [*tables, *net.originals], files, made_with)
        except (RuntimeError, MemoryError, OverflowError) as error:
            raise ValueError(f"{files.source}: {config.model_type} cannot be built ({first_line(error)})") from error
        report.notes += [adapted] if adapted else []
        report.unknown_config = [] if stated is None else stated.unknown
        net.preprocessing = read_preprocessing(files, report)
        return net.eval()

    @classmethod
    def from_state(cls: type[B], state: StateDict, config: BackboneConfigMixin, stated: StatedConfig) -> B:
        """As `from_files`, with weights in memory."""
        return cls.from_files(state, config, stated)

    @classmethod
    def as_in_files(cls, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by the names of the Hub's files, where transformers has given them those of its modules."""
        if not any(re.search(r"\battention\.q_proj\.", name) for name in tensors):
            return tensors
        parts: dict[str, dict[int, Tensor]] = {}
        for name, tensor in tensors.items():
            last = 0
            for row, (pattern, there) in enumerate(cls.in_memory, start=1):
                name, found = re.subn(pattern, there, name)
                last = row if found else last
            parts.setdefault(name, {})[last] = tensor
        if sum(map(len, parts.values())) < len(tensors):
            return tensors
        whole = {name: [rows[row] for row in sorted(rows)] for name, rows in parts.items()}
        return {name: torch.cat(rows) if len(rows) > 1 else rows[0] for name, rows in whole.items()}

    @classmethod
    def adapt_config(cls, config: Any, made_with: Any) -> str | None:
        """Change what follows in a config from the sizes of the checkpoint, and say how; None without a change."""
        return None

    def adapt_weight(
        self, name: str, weight: Tensor, shape: torch.Size, made_with: Any | None
    ) -> tuple[Tensor, str] | None:
        """A checkpoint's weight made to fit `shape`, and how; None when it fits or cannot be adapted.

        The rows of `stem.positions` belong to the config's `grid`, behind those of class tokens. `made_with` is a
        config with the sizes that the checkpoint states for its tables, None where it states none.
        """
        if name == "stem.positions" and (grid := getattr(self.config, "grid", None)):
            given, tokens = made_with and made_with.grid, shape[1] - grid[0] * grid[1]
            return adapt_positions(weight, shape, grid, given, tokens, getattr(self.stem, "antialias", False))
        same = weight.ndim == len(shape) == 4 and (weight.shape[0], *weight.shape[2:]) == (shape[0], *shape[2:])
        if same and weight.shape != shape and shape[1] == self.config.num_channels and self.reads_pixels(name):
            return adapt_input_channels(weight, shape[1]), f"{weight.shape[1]} input channels to {shape[1]}"
        return None

    def reads_pixels(self, name: str) -> bool:
        """Whether a weight is convolved with the input channels."""
        return name.startswith("stem.")

    def save_pretrained(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Write a folder in the Hub's layout: the config, the preprocessing, the weights of all built stages.

        `options` are those of transformers that ask for nothing else, such as `safe_serialization=True`; ValueError
        for any other, and for a folder that cannot be written.
        """
        for name in without_foreign("save_pretrained", options, SAVING):
            raise ValueError(f"save_pretrained: unknown option {name!r}{nearest(name, SAVING)}")
        save_checkpoint(folder, self)


_DTYPES = ("float16", "bfloat16", "float32", "float64")


def one_dtype(dtype: Any, torch_dtype: Any) -> Any:
    """What `dtype` and its older name `torch_dtype` say; ValueError when they contradict each other."""
    if None not in (dtype, torch_dtype) and str(dtype) != str(torch_dtype):
        raise ValueError(f"dtype={dtype!s} contradicts torch_dtype={torch_dtype!s}; give one of them")
    return torch_dtype if dtype is None else dtype


def checked_dtype(given: str | torch.dtype | None) -> torch.dtype | None:
    """A dtype or its name as a dtype; ValueError for one that weights cannot have."""
    name = str(given).removeprefix("torch.")
    if given is not None and name not in _DTYPES:
        raise ValueError(f"dtype={name!r}{nearest(name, _DTYPES)}")
    return None if given is None else getattr(torch, name)


def refuse_attention(implementation: str | None) -> None:
    """Raise ValueError for any implementation but "sdpa", the one that our networks have."""
    if implementation not in (None, "sdpa"):
        raise ValueError(
            f"attn_implementation={implementation!r} cannot be chosen: attention is torch's "
            "scaled_dot_product_attention; leave it out, or say 'sdpa'"
        )
