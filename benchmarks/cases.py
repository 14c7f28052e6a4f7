"""What is compared: each architecture in its standard size, timm's names for its weights, and the measurements."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bbframe import list_backbones
from bbframe.keymap import KeyMap
from bbframe.schema import nearest

LIBRARIES = ("bbframe", "transformers", "timm")
STAGES, BLOCKS = (1, 2, 3, 4), (3, 6, 9, 12)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One architecture.

    `choice` is the file in conf/backbone, `options` what is changed in it, `size` the side of the images, `indices`
    the maps. `timm` is timm's name, `names` its weights beside ours, `shift` what is added to an index to get timm's,
    `eps` its norms' where the checkpoints have another, `same` how many of the maps, counted from the last, are
    the same there.
    """

    title: str
    choice: str
    size: int = 224
    indices: tuple[int, ...] = STAGES
    options: dict[str, Any] = field(default_factory=dict)
    transformers: bool = True
    timm: str | None = None
    timm_options: dict[str, Any] = field(default_factory=dict)
    names: str = ""
    shift: int = -1
    eps: float | None = None
    same: int | None = None
    early: bool = False
    against: str | None = None  # the case whose network stands in for the peers that are not there
    note: str = ""


_PERCEPTRON = """
    layers.{}.blocks.{}.mlp.fc1                             stages.{}.blocks.{}.mlp.fc1
    layers.{}.blocks.{}.mlp.fc2                             stages.{}.blocks.{}.mlp.fc2"""
_SWIN = f"""
    patch_embed.proj                                        stem.patch
    patch_embed.norm                                        stem.norm
    layers.{{}}.blocks.{{}}.norm1                           stages.{{}}.blocks.{{}}.norm1
    layers.{{}}.blocks.{{}}.norm2                           stages.{{}}.blocks.{{}}.norm2
    layers.{{}}.blocks.{{}}.attn.qkv                        stages.{{}}.blocks.{{}}.attn.qkv
    layers.{{}}.blocks.{{}}.attn.proj                       stages.{{}}.blocks.{{}}.attn.proj
    layers.{{}}.downsample.norm                             stages.{{}}.downsample.norm
    layers.{{}}.downsample.reduction                        stages.{{}}.downsample.reduction{_PERCEPTRON}"""
_PLAIN = """
    cls_token                                               stem.cls_token
    patch_embed.proj                                        stem.patch
    blocks.{}.norm1                                         stages.{}.norm1
    blocks.{}.norm2                                         stages.{}.norm2
    blocks.{}.attn.qkv                                      stages.{}.attn.qkv
    blocks.{}.attn.proj                                     stages.{}.attn.proj
    blocks.{}.mlp.fc1                                       stages.{}.mlp.fc1
    blocks.{}.mlp.fc2                                       stages.{}.mlp.fc2"""
_CONVNEXT = """
    stem.{}                                                 stem.{}
    stages.{}.downsample.{}                                 stages.{}.downsample.{}
    stages.{}.blocks.{}.conv_dw                             stages.{}.blocks.{}.conv
    stages.{}.blocks.{}.norm                                stages.{}.blocks.{}.norm
    stages.{}.blocks.{}.mlp.fc1                             stages.{}.blocks.{}.fc1
    stages.{}.blocks.{}.mlp.fc2                             stages.{}.blocks.{}.fc2"""
_HGNET = "".join(
    f"""
    {part}.conv                                             {part}.conv
    {part}.bn                                               {part}.norm"""
    for part in (
        *("stem.stem1", "stem.stem2a", "stem.stem2b", "stem.stem3", "stem.stem4", "stages.{}.downsample"),
        *("stages.{}.blocks.{}.layers.{}", "stages.{}.blocks.{}.layers.{}.conv{}"),
        "stages.{}.blocks.{}.aggregation.{}",
    )
)
_HIERA = "\n".join(
    [
        "patch_embed.proj stem.patch\npos_embed stem.positions",
        *(
            f"blocks.{sum((1, 2, 7, 2)[:stage]) + block}.{name} stages.{stage}.blocks.{block}.{name}"
            for stage, depth in enumerate((1, 2, 7, 2))
            for block in range(depth)
            for name in ("norm1", "norm2", "proj", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        ),
    ]
)
_NORMS = "timm's maps are normalised behind it, as the others' are"

_CASES = {
    "beit": Case(
        title="BEiT-B/16",
        choice="beit_base",
        indices=BLOCKS,
        timm="beit_base_patch16_224",
        eps=1e-12,
        names=f"""{_PLAIN}
    blocks.{{}}.gamma_1                                     stages.{{}}.scale1.weight
    blocks.{{}}.gamma_2                                     stages.{{}}.scale2.weight
    blocks.{{}}.attn.q_bias                                 stages.{{}}.attn.qkv.q_bias
    blocks.{{}}.attn.v_bias                                 stages.{{}}.attn.qkv.v_bias
    blocks.{{}}.attn.relative_position_bias_table           stages.{{}}.bias.table""",
    ),
    "bit": Case(
        title="BiT-50",
        choice="bit_50x1",
        timm="resnetv2_50x1_bit",
        shift=0,
        names="""
    stem.conv                                               stem.conv
    stages.{}.blocks.{}.norm{}                              stages.{}.blocks.{}.norm{}
    stages.{}.blocks.{}.conv{}                              stages.{}.blocks.{}.conv{}
    stages.{}.blocks.{}.downsample.conv                     stages.{}.blocks.{}.shortcut.conv""",
    ),
    "convnext": Case(
        title="ConvNeXt-T",
        choice="convnext_tiny",
        timm="convnext_tiny",
        note=_NORMS,
        names=f"{_CONVNEXT}\n    stages.{{}}.blocks.{{}}.gamma         stages.{{}}.blocks.{{}}.scale.weight",
    ),
    "convnextv2": Case(
        title="ConvNeXtV2-T",
        choice="convnextv2_tiny",
        timm="convnextv2_tiny",
        note=_NORMS,
        early=True,
        names=f"{_CONVNEXT}\n    stages.{{}}.blocks.{{}}.mlp.grn       stages.{{}}.blocks.{{}}.grn",
    ),
    "dinat": Case(title="DiNAT-mini", choice="dinat_mini", transformers=False, against="swin"),
    "dinov2": Case(
        title="DINOv2-S/14",
        choice="dinov2_small",
        indices=BLOCKS,
        options={"image_size": 224},
        timm="vit_small_patch14_dinov2",
        timm_options={"img_size": 224},
        names=f"""{_PLAIN}
    pos_embed                                               stem.positions
    blocks.{{}}.ls1.gamma                                   stages.{{}}.scale1.weight
    blocks.{{}}.ls2.gamma                                   stages.{{}}.scale2.weight
    norm                                                    norm""",
    ),
    "dinov3_convnext": Case(
        title="DINOv3-ConvNeXt-T",
        choice="dinov3_convnext_tiny",
        timm="convnext_tiny",
        names=f"{_CONVNEXT}\n    stages.{{}}.blocks.{{}}.gamma         stages.{{}}.blocks.{{}}.scale.weight",
    ),
    "dinov2_with_registers": Case(
        title="DINOv2-S/14 with registers",
        choice="dinov2_with_registers_small",
        indices=BLOCKS,
        options={"image_size": 224},
        note="timm adds the class token's position to the token itself",
    ),
    "dinov3_vit": Case(
        title="DINOv3-S/16",
        choice="dinov3_vit_small",
        indices=BLOCKS,
        timm="vit_small_patch16_dinov3_qkvb",
        eps=1e-5,
        timm_options={"img_size": 224},
        names=f"""{_PLAIN}
    reg_token                                               stem.registers
    blocks.{{}}.attn.q_bias                                 stages.{{}}.attn.qkv.q_bias
    blocks.{{}}.attn.v_bias                                 stages.{{}}.attn.qkv.v_bias
    blocks.{{}}.gamma_{{}}                                  stages.{{}}.scale{{}}.weight
    norm                                                    norm""",
    ),
    "focalnet": Case(
        title="FocalNet-T (srf)",
        choice="focalnet_tiny",
        timm="focalnet_tiny_srf",
        same=1,
        note="timm's first three maps lie before the step to the next resolution, the others' behind it; the last is "
        "the same, and so is the work",
        names=f"""
    stem.proj                                               stem.proj
    stem.norm                                               stem.norm
    layers.{{}}.blocks.{{}}.norm1                           stages.{{}}.blocks.{{}}.norm1
    layers.{{}}.blocks.{{}}.norm2                           stages.{{}}.blocks.{{}}.norm2
    layers.{{}}.blocks.{{}}.modulation.f                    stages.{{}}.blocks.{{}}.modulation.proj_in
    layers.{{}}.blocks.{{}}.modulation.h                    stages.{{}}.blocks.{{}}.modulation.proj_context
    layers.{{}}.blocks.{{}}.modulation.proj                 stages.{{}}.blocks.{{}}.modulation.proj_out
    layers.{{}}.blocks.{{}}.modulation.focal_layers.{{}}.0  stages.{{}}.blocks.{{}}.modulation.convs.{{}}
    layers.{{+1}}.downsample.proj                           stages.{{}}.downsample.proj
    layers.{{+1}}.downsample.norm                           stages.{{}}.downsample.norm{_PERCEPTRON}""",
    ),
    "hgnet_v2": Case(title="HGNetV2-B4", choice="hgnet_v2_b4", timm="hgnetv2_b4", names=_HGNET),
    "hiera": Case(
        title="Hiera-T",
        choice="hiera_tiny",
        timm="hiera_tiny_224",
        names=_HIERA,
        note=f"transformers' tokens are put in the order of its HieraModel, which its backbone forgets; {_NORMS}",
    ),
    "lw_detr_vit": Case(
        title="LW-DETR-small's encoder",
        choice="lw_detr_vit_small",
        size=640,
        indices=(3, 5, 6, 10),
        note="as published for detection: maps behind blocks 3, 5, 6 and 10",
    ),
    "maskformer_swin": Case(title="MaskFormer-Swin-T", choice="maskformer_swin_tiny"),
    "nat": Case(title="NAT-mini", choice="nat_mini", transformers=False, against="swin"),
    "pixio": Case(title="Pixio-B/16", choice="pixio_base", size=256, indices=BLOCKS),
    "pvt_v2": Case(
        title="PVT v2-B2",
        choice="pvt_v2_b2",
        timm="pvt_v2_b2",
        eps=1e-6,
        names="""
    patch_embed.proj                                        stem.proj
    patch_embed.norm                                        stem.norm
    stages.{}.downsample.proj                               stages.{}.downsample.proj
    stages.{}.downsample.norm                               stages.{}.downsample.norm
    stages.{}.blocks.{}.norm{}                              stages.{}.blocks.{}.norm{}
    stages.{}.blocks.{}.attn.q                              stages.{}.blocks.{}.attn.q
    stages.{}.blocks.{}.attn.kv                             stages.{}.blocks.{}.attn.kv
    stages.{}.blocks.{}.attn.sr                             stages.{}.blocks.{}.attn.sr
    stages.{}.blocks.{}.attn.norm                           stages.{}.blocks.{}.attn.norm
    stages.{}.blocks.{}.attn.proj                           stages.{}.blocks.{}.attn.proj
    stages.{}.blocks.{}.mlp.fc{}                            stages.{}.blocks.{}.mlp.fc{}
    stages.{}.blocks.{}.mlp.dwconv                          stages.{}.blocks.{}.mlp.dwconv
    stages.{}.norm                                          stages.{}.norm""",
    ),
    "resnet": Case(
        title="ResNet-50",
        choice="resnet50",
        timm="resnet50",
        shift=0,
        early=True,
        names="""
    conv1                                                   stem.conv
    bn1                                                     stem.norm
    layer{+1}.{}.conv{+1}                                   stages.{}.blocks.{}.convs.{}.conv
    layer{+1}.{}.bn{+1}                                     stages.{}.blocks.{}.convs.{}.norm
    layer{+1}.{}.downsample.0                               stages.{}.blocks.{}.shortcut.conv
    layer{+1}.{}.downsample.1                               stages.{}.blocks.{}.shortcut.norm""",
    ),
    "rf_detr_dinov2": Case(
        title="RF-DETR-nano's encoder",
        choice="rf_detr_dinov2_nano",
        size=384,
        indices=BLOCKS,
    ),
    "rt_detr_resnet": Case(
        title="ResNet-50-vd",
        choice="rt_detr_resnet_50",
        timm="resnet50d",
        shift=0,
        names="""
    conv1.0                                                 stem.convs.0.conv
    conv1.1                                                 stem.convs.0.norm
    conv1.3                                                 stem.convs.1.conv
    conv1.4                                                 stem.convs.1.norm
    conv1.6                                                 stem.convs.2.conv
    bn1                                                     stem.convs.2.norm
    layer{+1}.{}.conv{+1}                                   stages.{}.blocks.{}.convs.{}.conv
    layer{+1}.{}.bn{+1}                                     stages.{}.blocks.{}.convs.{}.norm
    layer1.{}.downsample.1                                  stages.0.blocks.{}.shortcut.conv
    layer1.{}.downsample.2                                  stages.0.blocks.{}.shortcut.norm
    layer{+2}.{}.downsample.1                               stages.{+1}.blocks.{}.shortcut.1.conv
    layer{+2}.{}.downsample.2                               stages.{+1}.blocks.{}.shortcut.1.norm""",
    ),
    "swin": Case(
        title="Swin-T",
        choice="swin_tiny",
        timm="swin_tiny_patch4_window7_224",
        timm_options={"always_partition": True},  # shifted windows on maps of one window too, as transformers'
        note=_NORMS,
        early=True,
        names=f"""{_SWIN}
    layers.{{}}.blocks.{{}}.attn.relative_position_bias_table stages.{{}}.blocks.{{}}.position_bias""",
    ),
    "swinv2": Case(
        title="SwinV2-T",
        choice="swinv2_tiny",
        size=256,
        timm="swinv2_tiny_window8_256",
        names=f"""{_SWIN}
    layers.{{}}.blocks.{{}}.attn.cpb_mlp.{{}}               stages.{{}}.blocks.{{}}.position_mlp.{{}}
    layers.{{}}.blocks.{{}}.attn.logit_scale                stages.{{}}.blocks.{{}}.attn.logit_scale
    layers.{{}}.blocks.{{}}.attn.q_bias                     stages.{{}}.blocks.{{}}.attn.qkv.q_bias
    layers.{{}}.blocks.{{}}.attn.v_bias                     stages.{{}}.blocks.{{}}.attn.qkv.v_bias""",
    ),
    "vitdet": Case(
        title="ViTDet-B",
        choice="vitdet_base",
        indices=BLOCKS,
        options={"image_size": 224},
        note="as published, in windows of 14 with relative positions, on images of 224: the map is one window",
    ),
    "vitpose_backbone": Case(
        title="ViTPose-B",
        choice="vitpose_backbone_base",
        indices=BLOCKS,
        options={"image_size": 224},
        note="on squares of 224; transformers' maps are tokens",
    ),
}


def cases() -> dict[str, Case]:
    """Every architecture; one without an entry above has no peer, and its file's size."""
    names = [name for name in list_backbones() if name != "timm"]
    return {name: _CASES.get(name) or Case(title=name, choice=name, transformers=False) for name in names}


def timm_keys(case: Case) -> KeyMap:
    """The table of timm's names (theirs) and ours."""
    return KeyMap(case.names)


@dataclass(frozen=True)
class Measure:
    """One measurement, such as "compile-bf16-forward8": a forward pass of 8 images, compiled, in bfloat16."""

    name: str

    @cached_property
    def _parts(self) -> re.Match[str]:
        found = re.fullmatch(r"(compile-)?(bf16-)?(forward|train|early|memory|start)(\d*)", self.name)
        assert found is not None, self.name
        return found

    @property
    def compiled(self) -> bool:
        return bool(self._parts[1])

    @property
    def bf16(self) -> bool:
        return bool(self._parts[2])

    @property
    def kind(self) -> str:
        return self._parts[3]

    @property
    def batch(self) -> int:
        return int(self._parts[4] or 1)

    @property
    def unit(self) -> str:
        return {"memory": "MiB", "start": "s"}.get(self.kind, "ms")


# what --only may name, beside single measurements and "all"; those that take minutes each come last
GROUPS = {
    "cpu": {
        "forward1": ["forward1"],
        "forward8": ["forward8"],
        "train": ["train8"],
        "early": ["early8"],
        "bf16": ["bf16-forward1", "bf16-forward8", "bf16-train8"],
        "memory": ["memory8"],
        "start": ["start"],
        "compile": ["compile-forward8"],
        "compile-more": [
            *("compile-forward1", "compile-train8"),
            *("compile-bf16-forward1", "compile-bf16-forward8", "compile-bf16-train8"),
        ],
    },
    "cuda": {
        "forward": ["bf16-forward64"],
        "train": ["bf16-train64"],
        "memory": ["bf16-memory64"],
        "compile": ["compile-bf16-forward64", "compile-bf16-train64"],
    },
}
UNASKED = ("compile-more",)  # an hour or two: left out unless they are named


def chosen_cases(words: Sequence[str]) -> dict[str, Case]:
    """The cases that are named, or all; ValueError names a wrong word and the nearest right one."""
    known = cases()
    return {word: known[word] for word in _checked(words, known, "architecture")} if words else known


def chosen_measures(words: Sequence[str], device: str) -> list[str]:
    """The measurements of these groups and names in the order of the table; ValueError as above.

    No word stands for all but those that are long.
    """
    groups = GROUPS[device]
    every = [name for names in groups.values() for name in names]
    if not words:
        words = [group for group in groups if group not in UNASKED]
    menu = {**{name: [name] for name in every}, **groups, "all": every}
    chosen = {name for word in _checked(words, menu, "measurement") for name in menu[word]}
    return [name for name in every if name in chosen]


def _checked(words: Sequence[str], known: Iterable[str], what: str) -> Sequence[str]:
    menu = list(known)
    for word in words:
        if word not in menu:
            raise ValueError(f"unknown {what} {word!r}{nearest(word, menu)}")
    return words


def applies(case: Case, measure: Measure) -> bool:
    """Whether a measurement is made of an architecture."""
    if measure.kind == "early":
        return case.early
    if case.against is not None:  # another architecture's weights, memory and start are no yardstick
        return measure.kind in ("forward", "train")
    return measure.kind != "start" or case.transformers
