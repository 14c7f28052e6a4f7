"""What DINOv3's ConvNeXt alone promises."""

from __future__ import annotations

import pytest
import torch

from bbframe import AutoBackbone
from tests.tiny import distance, images, shaken, tiny

TIMM = "convnext_tiny.dinov3_lvd1689m"


@pytest.mark.long
def test_weights_by_timms_names_give_timms_maps(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = shaken(timm.create_model(TIMM))
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    config = {"model_type": "dinov3_convnext", "out_indices": [1, 2, 3, 4]}
    ours = AutoBackbone.from_pretrained(tmp_path / "w.pth", config=config)
    assert set(ours.load_report.ignored) == {"head.norm.weight", "head.norm.bias"}
    x = torch.randn(1, 3, 75, 53)
    with torch.no_grad():
        for a, b in zip(ours(x).feature_maps, theirs.forward_intermediates(x, intermediates_only=True), strict=True):
            assert distance(a, b) < 1e-5


def test_the_authors_files_are_read_by_their_names(tmp_path):
    net = shaken(tiny("dinov3_convnext"))
    theirs = {net.originals[0].theirs(key)[0]: value for key, value in net.state_dict().items()}
    assert {"downsample_layers.0.1.weight", "downsample_layers.2.1.bias", "stages.1.0.pwconv2.bias"} <= set(theirs)
    norm = {f"{name}.{leaf}": torch.ones(16) for name in ("norm", "norms.2") for leaf in ("weight", "bias")}
    torch.save(theirs | norm, tmp_path / "w.pth")
    again = AutoBackbone.from_pretrained(tmp_path / "w.pth", config=net.config)
    assert set(again.load_report.ignored) == set(norm)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())


def test_the_stem_is_the_normalised_patches_and_no_map_has_a_norm():
    net = tiny("dinov3_convnext").eval()
    output = net(images(net, 64, 96), output_hidden_states=True)
    assert output.feature_maps[0].shape == (2, 8, 16, 24)
    assert torch.allclose(output.feature_maps[0].mean(1), torch.zeros(()), atol=1e-5)  # a fresh norm's
    assert all(torch.equal(a, b) for a, b in zip(output.feature_maps, output.hidden_states, strict=True))


def test_a_layer_scale_of_zero_is_one_all_the_same():
    net = tiny("dinov3_convnext", layer_scale_init_value=0.0).eval()
    assert [key for key in net.state_dict() if key.endswith("scale.weight")]
    stem, first, *_ = net(images(net, 64, 96)).feature_maps
    assert torch.equal(stem, first)


def test_every_norm_has_the_configs_eps():
    net = tiny("dinov3_convnext", layer_norm_eps=0.03)
    assert {module.eps for module in net.modules() if isinstance(module, torch.nn.LayerNorm)} == {0.03}
