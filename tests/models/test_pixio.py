"""What Pixio alone promises."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from bbframe import AutoBackbone
from tests.tiny import GOLDEN, distance, images, shaken, tiny


def test_hidden_states_hold_all_class_tokens_and_their_mean_stands_for_the_image():
    net = shaken(tiny("pixio"))
    with torch.no_grad():
        out = net(images(net, 32, 48), output_hidden_states=True)
        state = out.hidden_states[1]
        expected = net.norm(state[:, :3]).mean(1)
    assert net.config.n_cls_tokens == 3
    assert state.shape == (2, 3 + 6, net.config.hidden_size)
    torch.testing.assert_close(net.class_token(state, "stage1"), expected)


def test_the_models_final_norm_is_kept_and_the_norm_of_the_maps_is_new():
    net = AutoBackbone.from_pretrained(GOLDEN / "pixio" / "plain")
    disk = load_file(GOLDEN / "pixio" / "plain" / "model.safetensors")
    assert torch.equal(net.final_weight, disk["layernorm.weight"])
    assert torch.equal(net.final_bias, disk["layernorm.bias"])
    assert net.load_report.fresh == ["norm.weight", "norm.bias"]
    assert torch.equal(net.norm.weight, torch.ones_like(net.norm.weight))


def test_a_saved_norm_of_the_maps_is_read_again(tmp_path):
    net = shaken(tiny("pixio"))
    net.save_pretrained(tmp_path)
    again = AutoBackbone.from_pretrained(tmp_path)
    assert not again.load_report.fresh
    assert torch.equal(again.norm.weight, net.norm.weight)


def test_the_file_of_transformers_backbone_is_read_as_transformers_reads_it(tmp_path):
    net = shaken(tiny("pixio"))
    net.save_pretrained(tmp_path)
    disk = load_file(tmp_path / "model.safetensors")
    own = ("layernorm", "encoder.layernorm")
    file = {name if name.startswith(own) else f"encoder.{name}": x for name, x in disk.items()}
    save_file(file, tmp_path / "model.safetensors")
    again = AutoBackbone.from_pretrained(tmp_path)
    assert all(torch.equal(x, net.state_dict()[key]) for key, x in again.state_dict().items())


def test_the_authors_names_are_read_and_their_norm_is_on_the_maps(tmp_path):
    net = shaken(tiny("pixio"))
    table = net.originals[0]
    weights = {part: x for key, x in net.state_dict().items() for part in table.theirs(key)}
    torch.save({k: x for k, x in weights.items() if not k.startswith("final.")}, tmp_path / "w.pth")
    again = AutoBackbone.from_pretrained(tmp_path / "w.pth", config=net.config)
    assert not again.load_report.fresh
    assert torch.equal(again.norm.weight, net.norm.weight)
    assert torch.equal(again.final_weight, net.norm.weight)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_the_published_models_own_norm_is_the_one_kept(tmp_path):
    """transformers' whole model applies it to its last hidden state."""
    transformers = pytest.importorskip("transformers")
    config = transformers.PixioConfig(**{**tiny("pixio").config.to_dict(), "out_features": None, "out_indices": None})
    theirs = shaken(transformers.PixioModel(config))
    theirs.save_pretrained(tmp_path)
    net = AutoBackbone.from_pretrained(tmp_path)
    net.norm.load_state_dict({"weight": net.final_weight, "bias": net.final_bias})
    x = images(net, 64, 64)
    with torch.no_grad():
        expected = theirs(x).last_hidden_state[:, 3:].transpose(1, 2).unflatten(2, (4, 4))
        assert distance(net(x).feature_maps[-1], expected) < 1e-5
