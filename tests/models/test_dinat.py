"""DiNAT: what it is of NAT, and its dilations."""

import dataclasses

import pytest
import torch

from bbframe import AutoBackbone, DinatConfig
from bbframe.layers.neighborhood import neighborhoods
from tests.tiny import images, tiny, tiny_config


def test_without_dilation_dinat_is_nat():
    nat = tiny("nat").eval()
    fields = {field.name: getattr(nat.config, field.name) for field in dataclasses.fields(nat.config) if field.init}
    config = DinatConfig(
        **fields, out_features=nat.config.out_features, dilations=[[1] * depth for depth in nat.config.depths]
    )
    dinat = AutoBackbone.from_config(config).eval()
    dinat.load_state_dict(nat.state_dict())
    x = images(nat, 53, 75)
    for a, b in zip(dinat(x).feature_maps, nat(x).feature_maps, strict=True):
        assert torch.equal(a, b)


def test_a_dilated_block_sees_every_so_many_th_place():
    """A change of one place reaches those of its own group alone."""
    block = tiny("dinat", dilations=[[4], [1, 1], [1], [1]], depths=[1, 2, 1, 1]).eval().stages[0].blocks[0]
    torch.nn.init.normal_(block.attn.rpb)
    x = torch.randn(1, 24, 24, block.norm1.normalized_shape[0])
    changed = x.clone()
    changed[:, 9, 14] += 1.0
    kernel = (block.attn.rpb.shape[-1] + 1) // 2
    around = neighborhoods(24, 24, kernel, 4, x.device)
    reached = (block(changed, *around) - block(x, *around)).abs().sum(-1)[0] > 1e-6
    rows, columns = (torch.arange(24) % 4 == place % 4 for place in (9, 14))
    assert reached.any()
    assert not (reached & ~(rows[:, None] & columns)).any()


def test_what_contradicts_is_named():
    with pytest.raises(ValueError, match=r"dinat: dilations=\[\[1\], \[2, 1\]\] must hold one integer for each block"):
        tiny_config("dinat", depths=[1, 1], num_heads=[1, 2], dilations=[[1], [2, 1]])
    with pytest.raises(ValueError, match=r"dinat: dilations\[0\]\[0\]=0 must be an integer within 1\.\.1024"):
        tiny_config("dinat", depths=[1, 1], num_heads=[1, 2], dilations=[[0], [1]])
