"""Weights by the names of timm and torchvision, in the native network of the same architecture."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from bbframe import AutoBackbone, make_backbone

timm = pytest.importorskip("timm")

# timm's network, the native config, and the last state as timm returns it
RESNET18 = {"model_type": "resnet", "depths": [2, 2, 2, 2], "layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
CONVNEXT = {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]}
CASES = {
    "resnet18": (RESNET18, 128),
    "resnet50": ({"model_type": "resnet"}, 64),
    "convnext_atto": ({"model_type": "convnext", **CONVNEXT}, 96),
    "convnextv2_atto": ({"model_type": "convnextv2", **CONVNEXT}, 96),
    "swin_tiny_patch4_window7_224": ({"model_type": "swin"}, 448),  # larger than 7 windows: the last stage shifts
    "vit_small_patch14_dinov2": (
        {"model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6, "image_size": 518},
        518,
    ),
}


def shaken(name: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    net = timm.create_model(name, **options).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return net


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_weights_by_timms_names_give_timms_maps(name: str, tmp_path: Path) -> None:
    config, side = CASES[name]
    theirs = shaken(name, **({"img_size": side} if name.startswith("swin") else {}))
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "w.pth")
    ours = AutoBackbone.from_pretrained(tmp_path / "w.pth", config=config)
    x = torch.randn(1, 3, side, side)
    with torch.no_grad():
        wanted = theirs.forward_features(x)
        output = ours(x, output_hidden_states=True)
    state = output.hidden_states[-1]
    if name.startswith("swin"):
        state = theirs.norm(state)
    elif "dinov2" in name:
        wanted, state = wanted[:, 1:], output.feature_maps[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(state, wanted, atol=2e-5, rtol=1e-4)


def test_torchvisions_weights_go_into_a_configuration_files_backbone(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours = make_backbone({**RESNET18, "pretrained": True, "checkpoint": str(tmp_path / "resnet18.pth")})
    assert torch.equal(ours.state_dict()["stem.conv.weight"], theirs.conv1.weight)
    shortcut = ours.state_dict()["stages.3.blocks.0.shortcut.norm.weight"]
    assert torch.equal(shortcut, theirs.layer4[0].downsample[1].weight)
    assert set(ours.load_report.ignored) == {"fc.weight", "fc.bias"}


@pytest.mark.long
def test_a_file_for_timms_network_says_what_to_write_beside_it(tmp_path: Path) -> None:
    theirs, path = timm.create_model("resnet18"), tmp_path / "it's here" / "r.pth"
    path.parent.mkdir()
    torch.save(theirs.state_dict(), path)
    with pytest.raises(ValueError, match=r"of timm; write it: echo") as error:
        AutoBackbone.from_pretrained(path, use_timm_backbone=True)
    subprocess.run(["bash", "-c", str(error.value).partition("write it: ")[2]], check=True)
    ours = AutoBackbone.from_pretrained(path, use_timm_backbone=True)
    assert torch.equal(ours.state_dict()["_backbone.conv1.weight"], theirs.conv1.weight)
