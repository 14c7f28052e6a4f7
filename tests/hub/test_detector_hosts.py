"""Backbones out of the checkpoints of RT-DETR, RT-DETRv2, D-FINE and DEIMv2."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import bbframe
from bbframe import AutoBackbone, make_backbone
from bbframe.app.composition import composition, plain_data
from bbframe.factory import check_backbone
from bbframe.hub.stated_config import stated_config
from tests.tiny import distance, images, shaken, tiny

peer = pytest.mark.peer
INNER = ["rt_detr_resnet", "hgnet_v2", "resnet"]
READ = ["stage2", "stage3", "stage4"]  # by the detectors
_HEADS = (
    "class_embed.0.weight",
    "bbox_embed.1.layers.0.bias",
    "model.encoder_input_proj.0.0.weight",
    "model.encoder_input_proj.0.1.running_var",
    "model.encoder.encoder.0.layers.0.self_attn.k_proj.weight",
    "model.encoder.fpn_blocks.0.bottlenecks.0.conv1.conv.weight",
    "model.decoder.layers.0.encoder_attn.value_proj.weight",
    "model.denoising_class_embed.weight",
    "model.enc_score_head.bias",
)


@pytest.fixture(params=INNER)
def backbone(request):
    net = shaken(tiny(request.param))
    net.out_features = READ
    return net


def write(folder, config, tensors):
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: value.clone() for key, value in tensors.items()}, folder / "model.safetensors")
    return folder


def detector(folder, net, model_type="rt_detr", prefix="model.backbone.model.", heads=_HEADS):
    """A detector around a backbone, whose norms are frozen: they count no batches."""
    net.save_pretrained(folder)
    inner = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    whole = {prefix + key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    return write(
        folder,
        {"model_type": model_type, "d_model": 16, "freeze_backbone_batch_norms": True, "backbone_config": inner},
        whole | {key: torch.zeros(3) for key in heads},
    )


def same(net, other):
    weights = other.state_dict()
    return all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("model_type", ["rt_detr", "rt_detr_v2", "d_fine"])
def test_the_backbone_of_a_detector_is_found(model_type, backbone, tmp_path):
    folder = detector(tmp_path, backbone, model_type)
    file = {"model_type": backbone.config.model_type, "checkpoint": str(folder), "pretrained": True}
    for net in (
        AutoBackbone.from_pretrained(folder),
        type(backbone).from_pretrained(folder),
        make_backbone({**file, "out_features": READ}),
    ):
        assert type(net) is type(backbone)
        assert net.config == backbone.config
        assert same(net, backbone)
        assert len(net.load_report.ignored) == len(_HEADS)
        assert all(key.endswith("num_batches_tracked") for key in net.load_report.fresh)
        assert not net.load_report.unknown_config
        assert all(parameter.requires_grad for parameter in net.parameters())  # freezing belongs to training
    early = AutoBackbone.from_pretrained(folder, out_indices=[1])
    assert early.load_report.not_built


def test_a_detector_without_its_heads_is_read_as_well(backbone, tmp_path):
    heads = [key.removeprefix("model.") for key in _HEADS if key.startswith("model.")]
    folder = detector(tmp_path, backbone, prefix="backbone.model.", heads=heads)
    assert same(AutoBackbone.from_pretrained(folder), backbone)


def test_what_the_detector_settles_is_checked(tmp_path):
    folder = detector(tmp_path, shaken(tiny("hgnet_v2")), "d_fine")
    with pytest.raises(ValueError, match=r"has stem_channels=\(3, 8, 12\) \(here \(3, 32, 48\)\)"):
        make_backbone(
            {"model_type": "hgnet_v2", "checkpoint": str(folder), "pretrained": True, "stem_channels": [3, 32, 48]}
        )


@pytest.mark.parametrize(
    ("model_type", "name", "channels"), [("rt_detr_v2", "rt_detr_resnet", 2048), ("d_fine", "hgnet_v2", 2048)]
)
def test_a_detector_that_names_no_backbone_has_its_usual_one(model_type, name, channels):
    host = bbframe.auto.backbone_class(name).hosts[model_type]
    config = host.config({"model_type": model_type})
    assert config["out_features"] == READ
    assert bbframe.auto.config_from_dict(config).channels[-1] == channels


@pytest.mark.parametrize(
    "inside",
    [
        {"backbone_config": {"model_type": "swin"}},
        {"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet50d"}},
        {"backbone_config": None, "backbone": "resnet50d", "use_timm_backbone": True},
    ],
)
def test_a_detector_with_another_backbone_is_refused(inside, backbone, tmp_path):
    folder = detector(tmp_path, backbone)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **inside}))
    names = "HGNetV2Backbone or ResNetBackbone or RTDetrResNetBackbone"
    with pytest.raises(ValueError, match=f"rt_detr holds another backbone than {names}; choose a checkpoint"):
        AutoBackbone.from_pretrained(folder)
    with pytest.raises(ValueError, match=f"rt_detr holds another backbone than {backbone.config.model_type}; choose"):
        type(backbone).from_pretrained(folder)


@peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["ForObjectDetection", "Model"])
@pytest.mark.parametrize("name", ["RTDetr", "RTDetrV2", "DFine", "Deimv2"])
def test_the_backbone_of_a_detector_of_transformers_is_found(name, kind, backbone, tmp_path):
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, f"{name}Config"):
        pytest.skip(f"this transformers has no {name}")
    inner = getattr(transformers, type(backbone.config).__name__)(**backbone.config.to_dict())
    width, widths = 16, [16, 16, 16]
    small = {"d_model": width, "encoder_hidden_dim": width, "encoder_ffn_dim": width, "decoder_ffn_dim": width}
    small |= {"encoder_in_channels": widths, "decoder_in_channels": widths, "decoder_layers": 2, "num_queries": 5}
    small |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    if name in ("DFine", "Deimv2"):
        small["decoder_n_points"] = [2, 2, 2]
    config = getattr(transformers, f"{name}Config")(backbone_config=inner, **small)
    whole = shaken(getattr(transformers, name + kind)(config))
    whole.save_pretrained(tmp_path)
    base = getattr(whole, "model", whole)
    theirs = (base.conv_encoder if name == "Deimv2" else base.backbone).model
    net = AutoBackbone.from_pretrained(tmp_path)
    assert type(net) is type(backbone)
    assert net.out_features == READ
    assert all(key.endswith("num_batches_tracked") for key in net.load_report.fresh)
    assert not net.load_report.unknown_config
    x = images(net, 75, 53)
    with torch.no_grad():
        for a, b in zip(net(x).feature_maps, theirs(x).feature_maps, strict=True):
            assert distance(a, b) < 1e-5


# what the published detectors, or the scripts that converted them, state of their backbones beside the stages that
# they read: those of PekingU, and of ustc-community
_BASIC = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
_STATED = {
    "rt_detr_resnet_18": {**_BASIC, "depths": [2, 2, 2, 2]},
    "rt_detr_resnet_34": _BASIC,
    "rt_detr_resnet_50": {},
    "rt_detr_resnet_101": {"depths": [3, 4, 23, 3]},
    "hgnet_v2_b0": {
        "hidden_sizes": [128, 256, 512, 1024],  # not the network's, as the next two
        "embedding_size": 32,
        "layer_type": "basic",
        "stem_channels": [3, 16, 16],
        "stage_in_channels": [16, 64, 256, 512],
        "stage_mid_channels": [16, 32, 64, 128],
        "stage_out_channels": [64, 256, 512, 1024],
        "stage_num_blocks": [1, 1, 2, 1],
        "stage_numb_of_layers": [3, 3, 3, 3],
        "use_learnable_affine_block": True,
    },
    "hgnet_v2_b2": {
        "hidden_sizes": [192, 384, 768, 1536],
        "stem_channels": [3, 24, 32],
        "stage_in_channels": [32, 96, 384, 768],
        "stage_mid_channels": [32, 64, 128, 256],
        "stage_out_channels": [96, 384, 768, 1536],
        "stage_num_blocks": [1, 1, 3, 1],
        "stage_numb_of_layers": [4, 4, 4, 4],
        "use_learnable_affine_block": True,
    },
    "hgnet_v2_b4": {"layer_type": "basic", "embedding_size": 32, "stem_channels": [3, 32, 48]},
    "hgnet_v2_b5": {
        "stem_channels": [3, 32, 64],
        "stage_in_channels": [64, 128, 512, 1024],
        "stage_mid_channels": [64, 128, 256, 512],
        "stage_num_blocks": [1, 2, 5, 2],
    },
}


@pytest.mark.parametrize("choice", _STATED)
def test_the_variants_are_those_of_the_published_detectors(choice):
    with composition() as compose:
        ours = check_backbone(plain_data(compose, [f"backbone={choice}"])["backbone"]).config
    inner = {"model_type": ours.model_type, "out_features": READ, "out_indices": [2, 3, 4], **_STATED[choice]}
    model_type = "rt_detr" if ours.model_type == "rt_detr_resnet" else "d_fine"
    config = {"model_type": model_type, "backbone": None, "use_timm_backbone": False, "backbone_config": inner}
    stated = stated_config("config.json", config, bbframe.auto.backbone_class(ours.model_type))
    assert not stated.unknown
    theirs = stated.config({})
    assert theirs.out_features == READ
    ours.out_features = READ
    assert theirs == ours
