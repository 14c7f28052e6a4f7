"""What ConvNeXt alone promises."""

import torch

from tests.tiny import distance, images, tiny


def states(net):
    with torch.no_grad():
        return net.eval()(images(net, 64, 96), output_hidden_states=True).hidden_states


def test_a_small_layer_scale_makes_blocks_begin_as_nothing():
    stem, first, *_ = states(tiny("convnext", layer_scale_init_value=1e-6))
    assert 0 < distance(first, stem) < 1e-4


def test_a_layer_scale_of_zero_is_none():
    scaled, bare = (tiny("convnext", layer_scale_init_value=value).state_dict() for value in (1e-6, 0.0))
    assert {key for key in scaled if key not in bare} == {key for key in scaled if key.endswith(".scale.weight")}
    assert set(bare) < set(scaled)
    stem, first, *_ = states(tiny("convnext", layer_scale_init_value=0.0))
    assert distance(first, stem) > 1e-3
