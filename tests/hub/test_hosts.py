"""Backbones out of the checkpoints of bigger models: MaskFormer's, and plain transformers that become detectors'."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import bbframe
from bbframe import AutoBackbone, make_backbone
from tests.tiny import distance, images, shaken, tiny

peer = pytest.mark.peer


def write(folder, config, tensors):
    """A checkpoint in the Hub's layout."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: value.clone() for key, value in tensors.items()}, folder / "model.safetensors")
    return folder


def same(net, other):
    weights = other.state_dict()
    return all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())


# MaskFormer


@pytest.fixture
def swin():
    """The Swin of a MaskFormer, which uses all stages but the stem."""
    net = shaken(tiny("maskformer_swin"))
    net.out_features = net.stage_names[1:]
    return net


@pytest.fixture(params=["swin", "maskformer-swin"])
def maskformer(request, swin, tmp_path):
    """A full MaskFormer around it, as early and as later files name its backbone."""
    swin.save_pretrained(tmp_path / "swin")
    inner = {**json.loads((tmp_path / "swin" / "config.json").read_text()), "model_type": request.param}
    config = {"model_type": "maskformer", "backbone_config": inner, "decoder_config": {"d_model": 8}, "id2label": {}}
    tensors = load_file(tmp_path / "swin" / "model.safetensors")
    whole = {f"model.pixel_level_module.encoder.{key}": value for key, value in tensors.items()}
    deep = "model.pixel_level_module.encoder.model."
    whole[f"{deep}encoder.layers.0.blocks.0.attention.self.relative_position_index"] = torch.zeros(2, 2)
    whole |= {f"{deep}layernorm.weight": torch.ones(8), f"{deep}layernorm.bias": torch.zeros(8)}
    whole |= {key: torch.zeros(3) for key in _REST_OF_MASKFORMER}
    return write(tmp_path / "maskformer", config, whole)


_REST_OF_MASKFORMER = (
    "class_predictor.weight",
    "class_predictor.bias",
    "mask_embedder.0.0.weight",
    "mask_embedder.2.0.bias",
    "criterion.empty_weight",
    "model.pixel_level_module.decoder.fpn.stem.0.weight",
    "model.pixel_level_module.decoder.fpn.layers.0.proj.0.weight",
    "model.pixel_level_module.decoder.fpn.layers.0.block.1.bias",
    "model.pixel_level_module.decoder.mask_projection.weight",
    "model.transformer_module.queries_embedder.weight",
    "model.transformer_module.input_projection.weight",
    "model.transformer_module.decoder.layers.0.self_attn.k_proj.weight",
    "model.transformer_module.decoder.layers.0.fc1.weight",
    "model.transformer_module.decoder.layernorm.bias",
)


def test_the_swin_of_a_maskformer_is_found(maskformer, swin):
    nothing = {"model_type": "maskformer-swin", "checkpoint": str(maskformer), "pretrained": True}
    nothing["out_features"] = swin.out_features
    for net in (
        AutoBackbone.from_pretrained(maskformer),
        bbframe.MaskFormerSwinBackbone.from_pretrained(maskformer),
        make_backbone(nothing),
        make_backbone({**nothing, "embed_dim": 8, "num_heads": swin.config.num_heads, "window_size": 4}),
    ):
        assert type(net) is bbframe.MaskFormerSwinBackbone
        assert net.config == swin.config
        assert same(net, swin)
        assert set(net.load_report.ignored) >= {key.removeprefix("model.") for key in _REST_OF_MASKFORMER}
        assert not net.load_report.fresh
        assert not net.load_report.unknown_config
    early = AutoBackbone.from_pretrained(maskformer, out_indices=[1, 2])
    assert early.load_report.not_built
    with pytest.raises(ValueError, match=r"has embed_dim=8 \(here 96\)"):
        make_backbone({**nothing, "embed_dim": 96})


def test_a_maskformer_without_its_heads_is_read_as_well(maskformer, swin):
    tensors = load_file(maskformer / "model.safetensors")
    bare = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    write(maskformer, json.loads((maskformer / "config.json").read_text()), bare)
    assert same(AutoBackbone.from_pretrained(maskformer), swin)


def test_a_maskformer_with_another_backbone_is_refused(maskformer):
    config = json.loads((maskformer / "config.json").read_text())
    for inner in ({"model_type": "resnet"}, None):
        (maskformer / "config.json").write_text(json.dumps({**config, "backbone_config": inner}))
        with pytest.raises(ValueError, match="maskformer holds another backbone than MaskFormerSwinBackbone; choose"):
            AutoBackbone.from_pretrained(maskformer)


@peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["MaskFormerForInstanceSegmentation", "MaskFormerModel"])
def test_the_swin_of_a_maskformer_of_transformers_is_found(kind, swin, tmp_path):
    transformers = pytest.importorskip("transformers")
    swin.config.layer_norm_eps = 1e-5
    inner = transformers.SwinConfig(**{**swin.config.to_dict(), "model_type": "swin"})
    decoder = transformers.DetrConfig(
        d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8, num_queries=4
    )
    config = transformers.MaskFormerConfig(
        backbone_config=inner, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32
    )
    whole = shaken(getattr(transformers, kind)(config))
    whole.save_pretrained(tmp_path)
    encoder = getattr(whole, "model", whole).pixel_level_module.encoder
    net = AutoBackbone.from_pretrained(tmp_path)
    assert type(net) is bbframe.MaskFormerSwinBackbone
    assert not net.load_report.fresh
    x = images(net, 75, 53)
    with torch.no_grad():
        for ours, theirs in zip(net(x).feature_maps, encoder(x).feature_maps, strict=True):
            assert distance(ours, theirs) < 1e-5


# plain transformers, in ViTDet


def vit(prefix="vit.", **fields):
    """The config and the tensors of a masked autoencoder, or of a plain transformer, of two blocks."""
    config = {"model_type": "vit_mae", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    config |= {"intermediate_size": 96, "image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-12} | fields
    width, inner = config["hidden_size"], config["intermediate_size"]
    linear = {"attention.attention.query": (width, width), "attention.attention.key": (width, width)}
    linear |= {"attention.attention.value": (width, width), "attention.output.dense": (width, width)}
    linear |= {"intermediate.dense": (inner, width), "output.dense": (width, inner)}
    shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, 1 + (config["image_size"] // config["patch_size"]) ** 2, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, config["patch_size"], config["patch_size"]),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
    }
    for i in range(config["num_hidden_layers"]):
        for name, shape in linear.items():
            shapes |= {f"encoder.layer.{i}.{name}.weight": shape, f"encoder.layer.{i}.{name}.bias": shape[:1]}
        for name in ("layernorm_before", "layernorm_after"):
            shapes |= {f"encoder.layer.{i}.{name}.{leaf}": (width,) for leaf in ("weight", "bias")}
    generator = torch.Generator().manual_seed(3)
    tensors = {prefix + key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    rest = ("decoder.mask_token", "decoder.decoder_pos_embed", "decoder.decoder_layers.0.output.dense.weight")
    return config, tensors | {key: torch.zeros(3) for key in rest}


DETECTOR = {"window_size": 3, "window_block_indices": [0], "residual_block_indices": [1]}
DETECTOR |= {"use_relative_position_embeddings": True, "image_size": 64}


def test_a_masked_autoencoder_becomes_the_backbone_of_a_detector(tmp_path):
    config, tensors = vit()
    folder = write(tmp_path, config, tensors)
    file = {"model_type": "vitdet", "pretrained": True, "checkpoint": str(folder), "hidden_size": 24, "patch_size": 8}
    file |= {"num_hidden_layers": 2, "num_attention_heads": 3, "pretrain_image_size": 32, "layer_norm_eps": 1e-6}
    for net in (
        bbframe.VitDetBackbone.from_pretrained(folder, **DETECTOR),
        make_backbone({**file, **DETECTOR, "drop_path_rate": 0.1}),
        AutoBackbone.from_pretrained(folder, **DETECTOR),
    ):
        assert type(net) is bbframe.VitDetBackbone
        assert (net.config.window_size, net.config.layer_norm_eps) == (3, 1e-6)
        assert (net.config.window_block_indices, net.config.residual_block_indices) == ((0,), (1,))
        weights, report = net.state_dict(), net.load_report
        assert torch.equal(weights["stem.positions"], tensors["vit.embeddings.position_embeddings"])
        part = "vit.encoder.layer.1.attention.attention.{}.weight"
        fused = torch.cat([tensors[part.format(which)] for which in ("query", "key", "value")])
        assert torch.equal(weights["stages.1.attn.qkv.weight"], fused)
        assert torch.equal(weights["stages.0.norm2.bias"], tensors["vit.encoder.layer.0.layernorm_after.bias"])
        assert {name.split(".")[2] for name in report.fresh} == {"attn", "residual"}
        assert not report.adapted
        assert "embeddings.cls_token" in report.ignored
        assert "decoder.mask_token" in report.ignored
        net(images(net, 64, 40)).feature_maps[-1].sum().backward()


def test_positions_are_resized_to_another_training_size(tmp_path):
    config, tensors = vit("", model_type="vit")
    net = bbframe.VitDetBackbone.from_pretrained(write(tmp_path, config, tensors), pretrain_image_size=56)
    assert list(net.load_report.adapted) == ["stem.positions"]
    assert net.state_dict()["stem.positions"].shape == (1, 50, 24)


def test_weights_alone_are_recognised_by_their_names(tmp_path):
    config, tensors = vit()
    folder = write(tmp_path, config, tensors)
    expected = bbframe.VitDetBackbone.from_pretrained(folder)
    (folder / "config.json").unlink()
    net = AutoBackbone.from_pretrained(folder, config=expected.config)
    assert same(net, expected)


def test_what_the_autoencoder_settles_is_checked(tmp_path):
    config, tensors = vit()
    file = {"model_type": "vitdet", "pretrained": True, "checkpoint": str(write(tmp_path, config, tensors))}
    with pytest.raises(ValueError, match=r"has hidden_size=24 \(here 768\), num_hidden_layers=2 \(here 12\); choose"):
        make_backbone({**file, "hidden_size": 768, "num_hidden_layers": 12})


@peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["ViTMAEForPreTraining", "ViTMAEModel", "ViTForImageClassification", "ViTModel"])
def test_plain_transformers_of_transformers_are_read(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    config, _ = vit()
    del config["model_type"], config["layer_norm_eps"]
    if "MAE" in kind:
        config |= {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    model = getattr(transformers, kind)
    theirs = shaken(model(model.config_class(**config)))
    theirs.save_pretrained(tmp_path / "vit")
    net = bbframe.VitDetBackbone.from_pretrained(tmp_path / "vit", layer_norm_eps=1e-12)
    assert not net.load_report.fresh
    assert net.load_report.ignored
    base = getattr(theirs, "vit", theirs)
    x = images(net, 32, 32)
    with torch.no_grad():  # their blocks, without the class token
        tokens = base.embeddings.patch_embeddings(x) + base.embeddings.position_embeddings[:, 1:]
        for layer in base.layers if hasattr(base, "layers") else base.encoder.layer:
            tokens = layer(tokens)
        assert distance(net(x).feature_maps[0].flatten(2).transpose(1, 2), tokens) < 1e-5
