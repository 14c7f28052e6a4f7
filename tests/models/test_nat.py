"""NAT: its options, and the spellings of the Hub."""

import pytest

from bbframe import NatBackbone, NatConfig


def test_what_contradicts_is_named():
    with pytest.raises(ValueError, match=r"nat: kernel_size=6 must be odd.*the nearest is 5"):
        NatConfig(kernel_size=6)
    with pytest.raises(ValueError, match="nat: patch_size"):
        NatConfig(patch_size=8)
    with pytest.raises(ValueError, match=r"nat: num_heads=\[3, 4, 8, 16\] must divide"):
        NatConfig(num_heads=(3, 4, 8, 16))


def test_the_hubs_other_spellings_are_known():
    hub = {"model_type": "nat", "num_attention_heads": [1, 2], "depths": [1, 1], "path_norm": True, "embed_dim": 8}
    assert not NatConfig.foreign_keys(hub)
    config = NatConfig.from_dict(hub)
    assert config.num_heads == (1, 2)
    assert NatBackbone(config).stages[1].blocks[0].scale is None
