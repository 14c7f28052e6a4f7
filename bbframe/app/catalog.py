"""What there is to choose from, and what one choice is and costs: the tables of `bbframe list` and `bbframe info`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby, zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bbframe.auto import AutoBackbone
from bbframe.backbone import Backbone
from bbframe.factory import check_backbone, make_backbone
from bbframe.report.profile import count_parameters, forward_memory_bytes, forward_seconds, gmacs, stage_gmacs
from bbframe.report.tables import aligned, labelled, number
from bbframe.run.configuration import parse_configuration
from bbframe.run.record import cpu_name

ANY_OF_TIMM = "timm"  # the choice whose network is named on the command line


def line(choice: str, options: Any) -> dict[str, Any]:
    """A line of the catalog as plain data, from what a backbone's file says; no tensor is made.

    Raises ValueError when the file describes no backbone.
    """
    if not isinstance(options, Mapping):
        raise ValueError(f"{options!r} must be a mapping of options")
    known: dict[str, Any] = {"backbone": choice, "model_type": options.get("model_type")}
    if choice == ANY_OF_TIMM:
        return {**known, "parameters": None, "stages": [], "checkpoint": None, "timm_name": "any: backbone.name=..."}
    checked = check_backbone(options)
    source, config = checked.source, checked.config
    with _Unfilled(), torch.device("meta"):
        net = AutoBackbone.from_config(config)
    return {
        **known,
        "parameters": count_parameters(net),
        "stages": [stage._asdict() for stage in config.stages],
        "checkpoint": source.checkpoint,
        "timm_name": source.timm_name or getattr(config, "backbone", None),
    }


class _Unfilled(TorchFunctionMode):
    """Leave out the initialisation: tensors on the meta device hold nothing, yet torch imports seconds for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith(("normal_", "uniform_")):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def listing(lines: Sequence[Mapping[str, Any]]) -> str:
    """The catalog as a table."""
    table = [["backbone", "params (M)", "stages", "channels", "strides", "Hub id", "timm name"]]
    for row in lines:
        stages = row["stages"]
        size = None if row["parameters"] is None else row["parameters"] / 1e6
        span = f"{stages[0]['name']}..{stages[-1]['name']}" if stages else "-"
        runs = [_runs([stage[key] for stage in stages]) for key in ("channels", "stride")]
        names = [row["checkpoint"] or "-", row["timm_name"] or "-"]
        table.append([row["backbone"], f"{number(size, '.2f'):>10}", span, *runs, *names])
    return "\n".join(aligned(table, left=len(table[0])))


def _runs(values: Sequence[int]) -> str:
    """[64, 768, 768, 768] -> "64 768 x3"."""
    runs = [(value, len(list(same))) for value, same in groupby(values)]
    words = [f"{value} x{count}" if count > 2 else " ".join([str(value)] * count) for value, count in runs]
    return " ".join(words) or "-"


def describe(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the backbone of a configuration is and costs on this machine, as plain data; no weights are loaded.

    Costs are those of one image of the configuration's size in float32. Raises ValueError for a configuration that
    is wrong, and for an image that the backbone cannot take.
    """
    plan = parse_configuration(config)
    source = plan.backbone.source
    net = make_backbone(plan.backbone.without_weights()).eval()
    height, width = plan.data.sides(net.preprocessing.size, max(net.strides))
    device = torch.device("cuda" if torch.cuda.is_available() and plan.trainer.accelerator != "cpu" else "cpu")
    image = torch.randn(1, net.config.num_channels, height, width, device=device)
    try:
        costs = _costs(net.to(device), image)
    except (RuntimeError, AssertionError) as error:  # as torch and timm say that it is too small or too large
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{plan.backbone_name}: an image of {_sizes(image.shape[1:])} does not pass ({reason}); "
            "set another data.image_size"
        ) from error
    return {
        "backbone": plan.backbone_name,
        "model_type": plan.backbone.config.model_type,
        "source": net.backbone_type.value,
        "checkpoint": source.checkpoint,
        "timm_name": source.timm_name or getattr(plan.backbone.config, "backbone", None),
        "revision": source.revision,
        "pretrained": source.pretrained,
        "image_from": "data.image_size" if getattr(plan.data, "image_size", None) else f"data={plan.data.name}",
        "image": list(image.shape[1:]),
        **costs,
    }


def _costs(net: Backbone, image: Tensor) -> dict[str, Any]:
    shapes = _map_shapes(net, image)
    parameters = [0] * net.num_built
    try:
        macs = stage_gmacs(net, image)
        total = sum(macs)
        for name, stage in net.parameter_stages().items():
            parameters[stage] += net.get_parameter(name).numel()
    except ValueError:  # a network of timm whose parameters have no stage
        parameters, macs, total = [], [], gmacs(net, tuple(image.shape[1:]))
    stages = [
        {
            **stage._asdict(),
            "selected": stage.name in net.out_features,
            "built": index < net.num_built,
            "map": shapes.get(stage.name),
            **dict(zip(("parameters", "gmacs", "cumulative_gmacs"), costs, strict=True)),
        }
        for index, (stage, *costs) in enumerate(zip_longest(net.config.stages, parameters, macs, accumulate(macs)))
    ]
    memory = forward_memory_bytes(net, image)
    seconds = forward_seconds(net, image)
    return {
        "stages": stages,
        "parameters": count_parameters(net),
        "gmacs": total,
        "peak_memory_bytes": memory,
        "weights_bytes": sum(tensor.nbytes for tensor in [*net.parameters(), *net.buffers()]),
        "latency_seconds": statistics.median(seconds),
        "latency_runs": len(seconds),
        "latency_range": [min(seconds), max(seconds)],
        "device": image.device.type,
        "device_name": torch.cuda.get_device_name() if image.is_cuda else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


@torch.no_grad()
def _map_shapes(net: Backbone, image: Tensor) -> dict[str, list[int]]:
    """The (C, H, W) of the map of every built stage, selected or not, as far as it has one."""
    selected, states, _ = net(image, output_hidden_states=True)
    assert states is not None
    built = net.config.selectable_names[: len(states)]
    _, _, height, width = net.fill_up(image).shape
    maps = {name: net.to_map(state, name, (height, width)) for name, state in zip(built, states, strict=True)}
    maps.update(zip(net.out_features, selected, strict=True))
    return {name: list(x.shape[1:]) for name, x in maps.items()}


def description(facts: Mapping[str, Any]) -> str:
    """What `describe` found, as text: what the backbone is, its stages, what it costs."""
    table = [["stage", "selected", "built", "channels", "stride", "map", "params (M)", "GMACs", "cumulative"]]
    for stage in facts["stages"]:
        flags = ["yes" if stage[key] else "-" for key in ("selected", "built")]
        shape = [str(stage["channels"]), str(stage["stride"]), _sizes(stage["map"]) if stage["map"] else "-"]
        macs = [number(stage[key], ".3f") for key in ("gmacs", "cumulative_gmacs")]
        table.append([stage["name"], *flags, *shape, _millions(stage["parameters"]), *macs])
    table.append(["total", *[""] * 5, _millions(facts["parameters"]), f"{facts['gmacs']:.3f}", ""])
    fastest, slowest = (f"{1e3 * seconds:.1f}" for seconds in facts["latency_range"])
    peak, weights = (facts[f"{key}_bytes"] / 2**20 for key in ("peak_memory", "weights"))
    threads = f", {facts['threads']} thread{'s' * (facts['threads'] > 1)}" if facts["device"] == "cpu" else ""
    before = {
        "backbone": f"{facts['backbone']} ({facts['model_type']})",
        "source": facts["source"],
        "checkpoint": facts["checkpoint"] or "-",
        "timm name": facts["timm_name"] or "-",
        "revision": facts["revision"] or "the newest",
        "weights": "pretrained, but not loaded here" if facts["pretrained"] else "fresh",
        "image": f"{_sizes(facts['image'])} (by {facts['image_from']})",
    }
    after = {
        "peak memory": f"{peak:.1f} MiB, {weights:.1f} of them weights",
        "latency": f"{1e3 * facts['latency_seconds']:.1f} ms ({fastest} to {slowest}; {facts['latency_runs']} passes)",
        "measured": f"one image, float32, {facts['device_name']}{threads}, torch {facts['torch']}",
    }
    return "\n".join([*labelled(before), "", *aligned(table), "", *labelled(after)])


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _millions(count: int | None) -> str:
    return number(None if count is None else count / 1e6, ".3f")
