"""What BiT alone promises."""

import pytest
import torch
from torch import nn

from bbframe import AutoBackbone, BitConfig
from tests.tiny import distance, images, tiny


def maps(net, height, width):
    with torch.no_grad():
        return net.eval()(images(net, height, width)).feature_maps


def test_the_width_factor_multiplies_all_channels():
    net, wide = tiny("bit"), tiny("bit", width_factor=3)
    assert wide.num_features == [3 * channels for channels in net.num_features]
    assert [m.shape[1] for m in maps(wide, 64, 96)] == wide.channels


@pytest.mark.parametrize("layer_type", ["preactivation", "bottleneck"])
@pytest.mark.parametrize("output_stride", [4, 8, 16, 32])
def test_no_map_is_coarser_than_the_output_stride(layer_type, output_stride):
    net = tiny("bit", layer_type=layer_type, output_stride=output_stride)
    assert net.strides == [min(stride, output_stride) for stride in (4, 4, 8, 16, 32)]
    assert [m.shape[2:] for m in maps(net, 64, 96)] == [(64 // s, 96 // s) for s in net.strides]


def test_dilated_kernels_see_what_coarser_maps_showed():
    """Without norms, which look at whole maps, every second place of a dilated map is that of the coarser one."""
    fields = {"layer_type": "bottleneck", "global_padding": None, "depths": [1, 2, 2, 3]}
    coarse, fine = tiny("bit", **fields), tiny("bit", output_stride=8, **fields)
    for net in (coarse, fine):
        for module in list(net.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.GroupNorm):
                    setattr(module, name, getattr(child, "act", nn.Identity()))
    fine.load_state_dict(coarse.state_dict())
    for a, b, step in zip(maps(coarse, 512, 512), maps(fine, 512, 512), (1, 1, 1, 2, 4), strict=True):
        inner = slice(6, -6) if step > 1 else slice(None)  # away from the borders, which lie elsewhere
        assert distance(a[..., inner, inner], b[..., ::step, ::step][..., inner, inner]) < 1e-4


@pytest.mark.parametrize("size", [(64, 96), (75, 53), (33, 34), (97, 31)])
def test_same_padding_gives_every_side_rounded_up(size):
    net = tiny("bit", global_padding="same", embedding_dynamic_padding=True)
    assert net.config.global_padding == "SAME"
    assert [m.shape[2:] for m in maps(net, *size)] == [tuple(-(-n // s) for n in size) for s in net.strides]


def test_filters_are_standardised():
    net = tiny("bit")
    before = maps(net, 64, 96)
    with torch.no_grad():
        for conv in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
            shape = (conv.out_channels, 1, 1, 1)
            conv.weight.mul_(1 + torch.rand(shape)).add_(torch.randn(shape))
    for a, b in zip(maps(net, 64, 96), before, strict=True):
        assert distance(a, b) < 1e-3


def test_filters_for_grey_images_keep_their_pattern(tmp_path):
    net = tiny("bit", layer_type="preactivation")
    net.save_pretrained(tmp_path)
    grey = AutoBackbone.from_pretrained(tmp_path, num_channels=1)
    x = images(grey, 64, 96)
    a, b = (stem.flatten(2) for stem in (grey.stem.conv(x), net.stem.conv(x.expand(-1, 3, -1, -1))))
    torch.testing.assert_close(a / a.std(-1, keepdim=True), b / b.std(-1, keepdim=True), atol=1e-4, rtol=1e-4)


def test_the_classifiers_norm_is_kept_but_does_not_train():
    net = tiny("bit", layer_type="preactivation", out_indices=[1])
    assert net.norm.weight.numel() == net.num_features[-1]
    assert not any(p.requires_grad for p in net.norm.parameters())
    assert not list(tiny("bit", layer_type="bottleneck").norm.parameters())


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"global_padding": "valid"},
            r"^bit: global_padding='VALID': the branches of a block could not be added; choose",
        ),
        ({"global_padding": "some"}, r"^bit: global_padding='SOME': not known; choose null or 'SAME'$"),
        ({"output_stride": 12}, r"^bit: output_stride=12 must be 4, 8, 16, 32 or a higher power of 2$"),
        ({"num_groups": 24}, r"^bit: num_groups=24 must divide the channels of all norms, \[64, 256, 512, .*\]$"),
        ({"depths": [1, 1]}, r"^bit: depths=\[1, 1\] and hidden_sizes=\[256, 512, 1024, 2048\] must be equally long$"),
    ],
)
def test_contradictions_are_named(fields, text):
    with pytest.raises(ValueError, match=text):
        BitConfig(**fields)
