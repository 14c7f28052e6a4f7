"""What ViTDet alone promises."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from torch._dynamo.testing import CompileCounter

from bbframe import AutoBackbone, VitDetBackbone, VitDetConfig, make_backbone
from bbframe.layers.positions import DecomposedPositions
from tests.tiny import GOLDEN, distance, images, tiny

WINDOWED = GOLDEN / "vitdet" / "windowed"
WIDTH, LAYERS = 24, 2
DETECTION = {
    "image_size": [64, 32],
    "use_relative_position_embeddings": True,
    "window_size": 3,
    "window_block_indices": [0],
    "residual_block_indices": [1],
    "layer_norm_eps": 1e-6,
}


@pytest.fixture
def autoencoder(tmp_path):
    """A small masked autoencoder as facebook/vit-mae-base lies on the Hub: 32 pixels, patches of 8."""
    shapes = {"cls_token": (1, 1, WIDTH), "position_embeddings": (1, 17, WIDTH)}
    shapes |= {"patch_embeddings.projection.weight": (WIDTH, 3, 8, 8), "patch_embeddings.projection.bias": (WIDTH,)}
    shapes = {f"embeddings.{key}": shape for key, shape in shapes.items()}
    square, wide = (WIDTH, WIDTH), (60, WIDTH)
    for i in range(LAYERS):
        weights = {f"attention.attention.{part}": square for part in ("query", "key", "value")}
        weights |= {"attention.output.dense": square, "intermediate.dense": wide, "output.dense": wide[::-1]}
        weights |= {"layernorm_before": square[:1], "layernorm_after": square[:1]}
        for key, shape in weights.items():
            shapes |= {f"encoder.layer.{i}.{key}.weight": shape, f"encoder.layer.{i}.{key}.bias": shape[:1]}
    shapes |= {"layernorm.weight": (WIDTH,), "layernorm.bias": (WIDTH,)}
    generator = torch.Generator().manual_seed(3)
    tensors = {f"vit.{key}": torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    tensors |= {"decoder.mask_token": torch.zeros(1, 1, 8), "decoder.decoder_embed.bias": torch.zeros(8)}
    save_file(tensors, tmp_path / "model.safetensors")
    config = {"model_type": "vit_mae", "architectures": ["ViTMAEForPreTraining"], "hidden_size": WIDTH}
    config |= {"num_hidden_layers": LAYERS, "num_attention_heads": 3, "intermediate_size": 60, "image_size": 32}
    config |= {"patch_size": 8, "layer_norm_eps": 1e-12, "decoder_hidden_size": 8, "mask_ratio": 0.75}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_detection_starts_from_a_masked_autoencoder(autoencoder):
    options = {"model_type": "vitdet", "checkpoint": str(autoencoder), "pretrained": True, **DETECTION}
    net = make_backbone(options)
    assert type(net) is VitDetBackbone
    assert net.config.pretrain_image_size == 32
    assert (net.config.mlp_ratio, net.config.layer_norm_eps) == (2.5, 1e-6)
    fresh = {key for key in net.state_dict() if ".positions." in key or ".residual." in key}
    assert set(net.load_report.fresh) == fresh
    assert len(fresh) == 4 + 9
    assert sorted(net.load_report.ignored) == [
        *("decoder.decoder_embed.bias", "decoder.mask_token"),
        *("embeddings.cls_token", "layernorm.bias", "layernorm.weight"),
    ]
    assert not net.load_report.adapted
    plain = AutoBackbone.from_pretrained(autoencoder, window_size=3, window_block_indices=[0], layer_norm_eps=1e-6)
    x = images(net, 40, 64)
    with torch.no_grad():  # what is fresh disturbs nothing
        for a, b in zip(net(x).feature_maps, plain(x).feature_maps, strict=True):
            assert distance(a, b) < 1e-5


def test_tables_and_kernels_of_another_size_are_adapted_and_it_is_said(autoencoder):
    net = VitDetBackbone.from_pretrained(autoencoder, pretrain_image_size=[40, 80], patch_size=10)
    assert net.load_report.adapted == {
        "stem.positions": "positions of 4 x 4 patches resized to 4 x 8",
        "stem.patch.weight": "patches of 8 x 8 pixels resized to 10 x 10",
    }
    bare = VitDetBackbone.from_pretrained(autoencoder, use_absolute_position_embeddings=False)
    assert "embeddings.position_embeddings" in bare.load_report.ignored


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_size", 48, r"has hidden_size=24 \(here 48\)"),
        ("mlp_ratio", 4, r"has mlp_ratio=2.5 \(here 4\)"),
    ],
)
def test_what_the_autoencoders_weights_settle_cannot_be_otherwise(autoencoder, field, value, message):
    options = {"model_type": "vitdet", "checkpoint": str(autoencoder), "pretrained": True, field: value}
    with pytest.raises(ValueError, match=message):
        make_backbone(options)


def test_tables_adapted_to_a_size_give_the_maps_of_that_size():
    net = AutoBackbone.from_pretrained(WINDOWED)
    adapted = AutoBackbone.from_pretrained(WINDOWED, image_size=[40, 72], pretrain_image_size=[40, 72])
    report = adapted.load_report.adapted
    assert report.pop("stem.positions") == "positions of 4 x 4 patches resized to 5 x 9"
    glob = [i for i in range(4) if i not in net.config.window_block_indices]
    assert set(report) == {f"stages.{i}.attn.positions.{line}" for i in glob for line in ("rows", "columns")}
    assert report["stages.1.attn.positions.rows"] == "offsets along 8 patches resized to 5"
    x = images(net, 40, 72)
    with torch.no_grad():
        for a, b in zip(adapted(x).feature_maps, net(x).feature_maps, strict=True):
            torch.testing.assert_close(a, b)


def test_attentions_and_hidden_states_have_the_documented_layout():
    net = tiny("vitdet", window_size=3, window_block_indices=[1]).eval()
    with torch.no_grad():
        out = net(images(net, 40, 56), output_hidden_states=True, output_attentions=True)
    assert [tuple(a.shape) for a in out.attentions] == [(2, 3, 35, 35), (2, 6, 3, 9, 9), (2, 3, 35, 35)]
    assert [tuple(s.shape) for s in out.hidden_states] == [(2, 5, 7, 24)] * 4


def test_windows_do_not_see_each_other_and_global_blocks_do():
    net = tiny("vitdet", window_size=3, window_block_indices=[0, 1, 2]).eval()
    whole = tiny("vitdet", window_size=0, window_block_indices=[0, 1, 2]).eval()
    x = images(net, 48, 48)
    changed = x.clone()
    changed[:, :, :24, :24] += 1.0  # the first of four windows
    with torch.no_grad():
        for n, reach in ((net, False), (whole, True)):
            change = (n(x).feature_maps[-1] - n(changed).feature_maps[-1]).abs().sum(dim=(0, 1))
            assert (change[:3, :3] > 0).all()
            assert bool(change[3:].any() or change[:, 3:].any()) is reach


def test_bottlenecks_and_relative_positions_change_nothing_at_first():
    net = tiny("vitdet", residual_block_indices=[0, 2], use_relative_position_embeddings=True).eval()
    plain = tiny("vitdet").eval()
    plain.load_state_dict(net.state_dict(), strict=False)
    assert any(isinstance(module, DecomposedPositions) for module in net.modules())
    x = images(net, 40, 56)
    with torch.no_grad():
        torch.testing.assert_close(net(x).feature_maps[-1], plain(x).feature_maps[-1])


@pytest.mark.parametrize("field", ["window_block_indices", "residual_block_indices"])
@pytest.mark.parametrize(
    ("value", "text"),
    [([0, 12], "=[0, 12] must count blocks within 0..11"), ([-1], "[0]=-1 must be an integer within 0..255")],
)
def test_a_block_that_is_not_there_is_named(field, value, text):
    with pytest.raises(ValueError, match=f"^vitdet: {field}{re.escape(text)}$"):
        VitDetConfig(**{field: value})


@pytest.mark.slow
def test_windows_and_relative_positions_compile_once_for_every_size():
    torch._dynamo.reset()
    counter = CompileCounter()
    fields = {"num_hidden_layers": 1, "window_size": 3, "window_block_indices": [0], "out_indices": [1]}
    net = tiny("vitdet", use_relative_position_embeddings=True, **fields).eval()
    for module in net.modules():
        if isinstance(module, DecomposedPositions):
            for table in module.parameters():
                torch.nn.init.normal_(table)
    compiled = torch.compile(net, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for batch, height, width in ((2, 40, 56), (3, 48, 72), (4, 75, 32)):
            x = images(net, height, width, batch)
            torch.testing.assert_close(compiled(x).feature_maps[-1], net(x).feature_maps[-1])
    assert counter.frame_count == 1
