"""Plain transformers out of whole pose estimators and detectors: ViTPose, LW-DETR and RF-DETR."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import bbframe
from bbframe import AutoBackbone, make_backbone
from tests.tiny import distance, images, shaken, tiny

peer = pytest.mark.peer
DETR = {"d_model": 16, "num_queries": 4, "decoder_layers": 1, "decoder_ffn_dim": 8, "group_detr": 2}
DETR |= {"decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2, "decoder_n_points": 1, "num_labels": 3}
SCALES = {"projector_scale_factors": [1.0]}
# the whole, what its config says beside the backbone's, the backbone, its size of images
WHOLES = {
    "pose, simple": ("VitPoseForPoseEstimation", {"num_labels": 3}, "vitpose_backbone", (64, 48)),
    "pose, classic": ("VitPoseForPoseEstimation", {"use_simple_decoder": False}, "vitpose_backbone", (64, 48)),
    "lw-detr": ("LwDetrForObjectDetection", DETR | SCALES, "lw_detr_vit", (64, 48)),
    "lw-detr, no head": ("LwDetrModel", DETR | SCALES, "lw_detr_vit", (64, 48)),
    "rf-detr": ("RfDetrForObjectDetection", DETR, "rf_detr_dinov2", (56, 56)),
    "rf-detr, masks": ("RfDetrForInstanceSegmentation", DETR, "rf_detr_dinov2", (56, 56)),
    "rf-detr, no head": ("RfDetrModel", DETR, "rf_detr_dinov2", (56, 56)),
}


def inside(whole):
    """transformers' backbone in one of its models."""
    found = [m for m in whole.modules() if type(m).__name__.endswith("Backbone")]
    assert len(found) == 1
    return found[0]


@peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize(("kind", "fields", "name", "size"), WHOLES.values(), ids=WHOLES.keys())
def test_the_backbone_of_a_whole_of_transformers_is_found(kind, fields, name, size, original, tmp_path):
    """By the names of the Hub's files, and by those that the modules have in memory."""
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, kind):
        pytest.skip(f"this transformers has no {kind}")
    ours = tiny(name)
    ours.out_indices = [2, -1]
    inner = {key: value for key, value in ours.config.to_dict().items() if key != "out_features"}
    model = getattr(transformers, kind)
    whole = model(model.config_class(**fields, backbone_config={**inner, "out_indices": ours.config.out_indices}))
    theirs = inside(shaken(whole))
    whole.save_pretrained(tmp_path, save_original_format=original)
    for net in (AutoBackbone.from_pretrained(tmp_path), type(ours).from_pretrained(tmp_path)):
        assert isinstance(net, type(ours))
        assert not net.load_report.fresh
        assert not net.load_report.unknown_config
        x = images(net, *size)
        with torch.no_grad():
            for one, other in zip(net(x).feature_maps, theirs(x).feature_maps, strict=True):
                if other.ndim == 3:
                    other = other.transpose(1, 2).unflatten(2, one.shape[2:])
                assert distance(one, other) < 1e-5
    state = AutoBackbone.from_state_dict(whole.config, whole)
    assert all(torch.equal(a, b) for a, b in zip(state.parameters(), net.parameters(), strict=True))
    early = AutoBackbone.from_pretrained(tmp_path, out_indices=[1])
    with torch.no_grad():
        state = net(x, output_hidden_states=True).hidden_states[1]
        assert distance(early(x, output_hidden_states=True).hidden_states[1], state) < 1e-6


# without transformers

HOSTS = {
    "vitpose_backbone": ("vitpose", "backbone.", ["head.conv.weight", "head.deconv1.weight"]),
    "lw_detr_vit": (
        *("lw_detr", "model.backbone.backbone."),
        [
            *("model.backbone.projector.scale_layers.0.layer_norm.weight", "model.query_feat.weight"),
            *("model.decoder.layers.0.fc1.weight", "model.enc_output.0.weight", "class_embed.weight"),
            *("model.reference_point_embed.weight", "bbox_embed.layers.0.bias", "model.enc_out_bbox_embed.0.bias"),
        ],
    ),
    "rf_detr_dinov2": (
        *("rf_detr", "backbone.0.encoder.encoder."),
        [
            *("backbone.0.projector.stages.0.1.weight", "transformer.decoder.norm.weight", "class_embed.weight"),
            *("refpoint_embed.weight", "query_feat.weight", "bbox_embed.layers.0.bias", "segmentation_head.bias"),
        ],
    ),
}


@pytest.fixture(params=HOSTS)
def whole(request, tmp_path):
    """A backbone with two maps, a folder that holds a whole around it as the Hub's files name it, and the others."""
    model_type, prefix, others = HOSTS[request.param]
    net = shaken(tiny(request.param))
    net.out_indices = [2, -1]
    net.save_pretrained(tmp_path / "alone")
    inner = json.loads((tmp_path / "alone" / "config.json").read_text())
    tensors = load_file(tmp_path / "alone" / "model.safetensors")
    renamed = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value"}
    renamed["o_proj"] = "output" if model_type == "lw_detr" else "output.dense"
    named = {}
    for key, value in tensors.items():
        for new, old in renamed.items():
            key = key.replace(f"attention.{new}.", f"attention.{old}.")
        named[prefix + key] = value
    (tmp_path / "whole").mkdir()
    config = {"model_type": model_type, "backbone_config": inner, "id2label": {}, "num_queries": 4}
    (tmp_path / "whole" / "config.json").write_text(json.dumps(config))
    save_file({**named, **{key: torch.zeros(3) for key in others}}, tmp_path / "whole" / "model.safetensors")
    return net, tmp_path / "whole", others


def test_the_backbone_of_a_whole_is_found(whole):
    net, folder, others = whole
    file = {"model_type": net.config.model_type, "checkpoint": str(folder), "pretrained": True}
    for found in (
        AutoBackbone.from_pretrained(folder),
        type(net).from_pretrained(folder),
        make_backbone({**file, "out_indices": [2, -1], "hidden_size": net.config.hidden_size}),
    ):
        assert type(found) is type(net)
        assert found.config == net.config
        assert len(found.load_report.ignored) == len(others)
        assert not found.load_report.fresh
        weights = found.state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
    with pytest.raises(ValueError, match=rf"has hidden_size={net.config.hidden_size} \(here 48\); choose"):
        make_backbone({**file, "hidden_size": 48})


def test_a_whole_with_another_backbone_is_refused(whole):
    net, folder, _ = whole
    config = json.loads((folder / "config.json").read_text())
    for inner in ({"model_type": "resnet"}, None):
        (folder / "config.json").write_text(json.dumps({**config, "backbone_config": inner}))
        text = f"{config['model_type']} holds another backbone than {net.config.model_type}; choose"
        with pytest.raises(ValueError, match=text):
            type(net).from_pretrained(folder)


def test_weights_alone_are_recognised_by_their_names(whole):
    net, folder, _ = whole
    (folder / "config.json").unlink()
    found = AutoBackbone.from_pretrained(folder, config=net.config)
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), net.parameters(), strict=True))


def test_the_expert_of_a_pose_estimator_is_chosen_by_the_data_set(tmp_path):
    net = shaken(tiny("vitpose_backbone", num_experts=3, part_features=8, dataset_index=0))
    net.save_pretrained(tmp_path / "alone")
    inner = json.loads((tmp_path / "alone" / "config.json").read_text())
    del inner["dataset_index"]
    tensors = load_file(tmp_path / "alone" / "model.safetensors")
    (tmp_path / "whole").mkdir()
    save_file({f"backbone.{key}": value for key, value in tensors.items()}, tmp_path / "whole" / "model.safetensors")
    (tmp_path / "whole" / "config.json").write_text(json.dumps({"model_type": "vitpose", "backbone_config": inner}))
    file = {"model_type": "vitpose_backbone", "pretrained": True, "num_experts": 3}
    file |= {"hidden_size": net.config.hidden_size, "part_features": 8, "num_attention_heads": 3}
    x = images(net, 64, 48)
    for index in range(3):
        one = bbframe.VitPoseBackbone.from_pretrained(tmp_path / "whole", dataset_index=index)
        alone, other = (
            make_backbone({**file, "checkpoint": str(tmp_path / folder), "dataset_index": index})
            for folder in ("alone", "whole")
        )
        expected = shaken(tiny("vitpose_backbone", num_experts=3, part_features=8, dataset_index=index))
        with torch.no_grad():
            for found in (one, other, alone):
                assert found.config.dataset_index == index
                assert distance(found(x).feature_maps[-1], expected(x).feature_maps[-1]) < 1e-5
