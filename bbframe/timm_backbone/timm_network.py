"""A network of timm, described without making tensors: its arguments, its feature levels, its names."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bbframe.hub.adapted_tables import adapt_positions
from bbframe.hub.client import first_line
from bbframe.keymap import KeyMap
from bbframe.schema import nearest
from bbframe.selection import Stage

# arguments that let networks of patches or windows take images of any size
_ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True, "strict_img_size": False}
# arguments of timm that have a field of their own, choose the wrapper, or load something
RESERVED = frozenset(
    "model_name pretrained pretrained_cfg pretrained_cfg_overlay checkpoint_path cache_dir scriptable exportable "
    "no_jit features_only feature_cls feature_cfg out_indices in_chans num_classes global_pool output_stride "
    "drop_path_rate device dtype".split()
)


class Network(NamedTuple):
    """What timm makes of a name and arguments; the modules are on the meta device."""

    name: str
    options: dict[str, Any]  # the arguments of timm.create_model
    cfg: dict[str, Any]  # timm's pretrained_cfg
    full: Any  # the module with its classifier
    features: Any  # the net of all levels
    info: list[dict[str, Any]]  # timm's description of each level
    levels: tuple[Stage, ...]

    @property
    def input_size(self) -> tuple[int, int]:
        """The (height, width) that the network is made for."""
        size = self.options.get("img_size") or self.cfg["input_size"][-2:]
        return (size, size) if isinstance(size, int) else (size[0], size[1])


@lru_cache(maxsize=64)
def network(name: str, stated: str) -> Network:
    """A network by its registered name and its arguments in JSON; ValueError when timm refuses to make it."""
    options = json.loads(stated)
    full = _on_meta(name, options)
    if not _ANY_SIZE.keys() & options.keys():
        options |= {key: value for key, value in _ANY_SIZE.items() if key in _parameters(type(full))}
    info = _on_meta(name, {**options, "features_only": True, "out_indices": (-1,)}).feature_info.info
    modules = [level["module"] for level in info]
    names = [m if m and modules.count(m) == 1 else f"{m or 'level'}:{i}" for i, m in enumerate(modules)]
    levels = tuple(Stage(n, level["num_chs"], int(level["reduction"])) for n, level in zip(names, info, strict=True))
    exposed = tuple(i for i, module in enumerate(modules) if module)
    features = _on_meta(name, {**options, "features_only": True, "out_indices": exposed})
    return Network(name, options, full.pretrained_cfg, full, features, info, levels)


def _refuse_endless(where: str, value: Any) -> None:
    """Raise ValueError for a count of blocks that no machine makes, or a size that none holds."""
    if isinstance(value, (list, tuple)):
        for inner in value:
            _refuse_endless(where, inner)
    most = 1000 if re.search(r"depth|layers|blocks", where) else 10**6
    if isinstance(value, (int, float)) and not -most <= value <= most:
        raise ValueError(f"{where}={value} must be at most {most}")


def _on_meta(name: str, options: Mapping[str, Any]) -> Any:
    """A network of timm without tensors; ValueError says why timm refuses to make it."""
    import timm

    for key, value in options.items():
        _refuse_endless(f"timm_backbone: {name}: {key}", value)
    try:
        with torch.device("meta"):
            return timm.create_model(name, **options)
    except (TypeError, RuntimeError, AssertionError, ValueError, LookupError, ArithmeticError, MemoryError) as error:
        for key in options:
            if isinstance(error, TypeError) and f"'{key}'" in str(error):
                known = _parameters(type(_on_meta(name, {}))) - RESERVED
                if key in known:
                    raise ValueError(f"timm_backbone: {name} fixes {key!r} itself; choose another name") from error
                hint = "; leave it null" if key in RESERVED else nearest(key, known)
                raise ValueError(f"timm_backbone: {name} takes no {key!r}{hint}") from error
        stated = {key: value for key, value in options.items() if key not in ("pretrained_cfg", *_ANY_SIZE)}
        said = f": {first_line(error)}" if str(error).strip() else ""
        reason = f"{type(error).__name__}{said}"
        raise ValueError(f"timm_backbone: timm cannot make {name} with {stated} ({reason})") from error


def _parameters(cls: type) -> set[str]:
    """The arguments of a class, and those of its bases that it passes on."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
            names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return names - {"self"}


def takes_argument(net: Network, name: str) -> bool:
    """Whether a network can be made with an argument of this name."""
    return name in _parameters(type(net.full))


def build(net: Network, taps: Mapping[int, int | str]) -> Any:
    """timm's features net, freshly initialised; it ends at the last tap and returns the maps of all taps."""
    import timm

    levels = [tap for tap in taps.values() if isinstance(tap, int)]
    wanted = levels or [len(net.levels) - 1]
    features: Any = timm.create_model(net.name, features_only=True, out_indices=tuple(wanted), **net.options)
    stems = {tap: "stem" for tap in taps.values() if isinstance(tap, str)}
    if stems:  # only a chain of modules has one
        features.return_layers = {**stems, **(features.return_layers if levels else {})}
        children = list(features)
        for child in children[children.index([*features.return_layers][-1]) + 1 :]:
            del features[child]
    stage = net.info[wanted[-1]].get("stage")
    if stage is not None and hasattr(features, "blocks"):  # the net of EfficientNets builds and runs all of them
        features.blocks = features.blocks[:stage]
    return features


def reached_parameters(net: Network, taps: Mapping[int, int | str]) -> dict[int, set[str]] | None:
    """The names of the parameters on which the map of each stage depends, from the graph of a forward on meta tensors.

    None for the few networks whose forward reads the values of tensors: a meta tensor has none.
    """
    with torch.device("meta"), torch.enable_grad():
        features = build(net, taps).requires_grad_(True)
        try:
            states = maps(features, torch.empty(2, net.options["in_chans"], *net.input_size))
        except RuntimeError:
            return None
    names = {id(parameter): name for name, parameter in features.named_parameters()}
    return {stage: {names[i] for i in _leaves(state)} for stage, state in zip(taps, states, strict=True)}


def _leaves(tensor: Tensor) -> set[int]:
    """The ids of the parameters that a tensor was computed from."""
    open_nodes, seen, leaves = [tensor.grad_fn], set(), set()
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        open_nodes.extend(before for before, _ in node.next_functions)
    return leaves


class AcceptedSizes(NamedTuple):
    """The sizes of images that a network takes: multiples of `unit`, at most of `most` (height, width) if given."""

    unit: tuple[int, int]
    most: tuple[int, int] | None = None

    def padded(self, height: int, width: int) -> tuple[int, int] | None:
        """The least accepted size that holds an image of this one, None when there is none."""
        size = -(-height // self.unit[0]) * self.unit[0], -(-width // self.unit[1]) * self.unit[1]
        fits = self.most is None or (size[0] <= self.most[0] and size[1] <= self.most[1])
        return size if fits else None


@lru_cache(maxsize=64)
def accepted_sizes(name: str, stated: str) -> AcceptedSizes | None:
    """What sizes a network takes, tried on meta tensors; None for any, or when a meta tensor cannot tell."""
    net = network(name, stated)
    (height, width), s = net.input_size, net.levels[-1].stride

    def takes(*sizes: tuple[int, int]) -> bool:
        try:
            with torch.no_grad():
                for size in sizes:
                    maps(net.features, torch.empty(2, net.options["in_chans"], *size, device="meta"))
        except (RuntimeError, AssertionError, ValueError, TypeError, IndexError):
            return False
        return True

    if takes((height + 2 * s + 3, width + s + 1)) or not takes((height, width)):
        return None
    for unit in sorted({level.stride for level in net.levels}):
        if takes((height + unit, width + 2 * unit), (2 * s + unit, 3 * s)):
            return AcceptedSizes((unit, unit))
    whole = AcceptedSizes((height, width))
    return whole if takes((2 * height, width), (height, 3 * width)) else whole._replace(most=(height, width))


def adapt_grid(net: Network, table: Tensor, size: tuple[int, int]) -> tuple[Tensor, str] | None:
    """A table of positions made for images of a size (height, width), for those of the network; None when it fits."""
    patches = getattr(net.full, "patch_embed", None)
    patch = getattr(patches, "patch_size", None)
    if patch is None or table.ndim != 3 or getattr(net.full, "pos_embed", None) is None:
        return None
    given, grid = ((h // patch[0], w // patch[1]) for h, w in (size, net.input_size))
    shape: torch.Size = net.full.pos_embed.shape
    return adapt_positions(table, shape, grid, given, tokens=shape[1] - grid[0] * grid[1])


def maps(features: Any, x: Tensor) -> list[Tensor]:
    """The maps (B, C, H, W) of a features net, in its order."""
    states = features(x)
    if getattr(features, "output_fmt", "NCHW") == "NHWC":
        return [state.permute(0, 3, 1, 2) for state in states]
    return list(states)


class Names(KeyMap):
    """Names in timm's full network (theirs) <-> in the features net (ours), which flattens: stages.0 <-> stages_0."""

    def __init__(self, net: Network):
        super().__init__("")
        parts = dict(net.full.named_children())
        inner = {f"{a}_{b}": f"{a}.{b}" for a, part in parts.items() for b, _ in part.named_children()}
        children = [child for child, _ in net.features.named_children()]
        whole = len(children) == 1 and children[0] not in {*parts, *inner}  # not rewritten, but wrapped in one module
        self._places = {c: "" if whole else c if c in parts else inner.get(c, c) for c in children}
        classifiers = net.cfg.get("classifier") or ()
        self._heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
        self._full = set(net.full.state_dict())

    def theirs(self, ours: str) -> list[str]:
        root, _, rest = ours.removeprefix("_backbone.").partition(".")
        return [".".join(filter(None, (self._places.get(root, root), rest)))]

    def ours(self, theirs: str) -> str | None:
        for root, place in self._places.items():
            if f"{theirs}.".startswith(f"{place}." if place else ""):
                rest = f"{theirs}.".removeprefix(f"{place}." if place else "").rstrip(".")
                return ".".join(filter(None, ("_backbone", root, rest)))
        return None

    def ignores(self, theirs: str) -> bool:
        return theirs in self._full or theirs.startswith(tuple(f"{head}." for head in self._heads))


@lru_cache(maxsize=64)
def matched(name: str, stated: str, model: str, stages: tuple[Stage, ...]) -> dict[int, int | str]:
    """The level or child module of timm's network that makes the map of each stage of the native architecture `model`.

    Levels and stages are paired from the end while channels and strides agree. The first stage is the stem: timm has
    no level for it, but in a net that is a chain of modules, the module before the first level makes its map. Raises
    ValueError when the two cannot be the same network.
    """
    net = network(name, stated)
    pairs: dict[int, int] = {}
    for stage, level in zip(range(len(stages) - 1, 0, -1), range(len(net.levels) - 1, -1, -1), strict=False):
        if stages[stage][1:] != net.levels[level][1:]:
            break
        pairs[stage] = level
    first = min(pairs, default=0)
    too_few = bool(pairs) and first > 1 and pairs[first] == 0
    too_many = first == 1 and pairs[1] > 0 and net.levels[pairs[1] - 1].stride == stages[1].stride
    if not pairs or too_few or too_many:
        raise ValueError(
            f"timm_backbone: {name} of timm is not the network that {model} describes: its levels have "
            f"{[level.channels for level in net.levels]} channels, the stages {[s.channels for s in stages[1:]]}; "
            "choose another timm_name"
        )
    taps: dict[int, int | str] = {stage: pairs[stage] for stage in sorted(pairs)}
    stem = _module_before(net, pairs[1]) if first == 1 else None
    return taps if stem is None or not _gives(net, stem, stages[0]) else {0: stem, **taps}


def _module_before(net: Network, level: int) -> str | None:
    """The child module that runs just before the module of a level, in a net that is a chain of its children."""
    import timm

    if not isinstance(net.features, timm.models.FeatureDictNet):
        return None
    children = list(net.features)
    root = (Names(net).ours(net.info[level]["module"]) or "").removeprefix("_backbone.")
    return children[children.index(root) - 1] if root in children[1:] else None


def _gives(net: Network, child: str, stage: Stage) -> bool:
    """Whether the output of a child module has the channels and the stride of a stage."""
    side = 8 * net.levels[-1].stride
    kept, net.features.return_layers = net.features.return_layers, {child: "0"}
    try:
        (x,) = maps(net.features, torch.empty(1, net.options["in_chans"], side, side, device="meta"))
    except RuntimeError:
        return False
    finally:
        net.features.return_layers = kept
    return tuple(x.shape) == (1, stage.channels, side // stage.stride, side // stage.stride)
