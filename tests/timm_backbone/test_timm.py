"""timm's networks as backbones: properties over many families, timm's weights, timm's version of native ones."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bbframe import AutoBackbone, make_backbone
from bbframe.timm_backbone.backbone import TimmBackbone, TimmBackboneConfig
from bbframe.timm_backbone.timm_network import Names

timm = pytest.importorskip("timm")

# a small network of each family: (height, width) of the input, arguments
NETWORKS = {
    "test_resnet": ((64, 96), {}),
    "resnetv2_18": ((64, 96), {}),
    "regnetx_002": ((64, 96), {}),
    "vgg11": ((64, 96), {}),
    "test_nfnet": ((64, 96), {}),
    "test_byobnet": ((64, 96), {}),
    "test_efficientnet": ((64, 96), {}),
    "mobilenetv3_small_050": ((64, 96), {}),
    "test_convnext": ((64, 96), {}),
    "test_convnext2": ((64, 96), {}),
    "swin_tiny_patch4_window7_224": ((64, 96), {"depths": [1, 1, 1, 1], "embed_dim": 24}),
    "swinv2_tiny_window8_256": ((64, 96), {"depths": [1, 1, 1, 1], "embed_dim": 24}),
    "test_vit": ((64, 96), {}),
    "deit_tiny_distilled_patch16_224": ((64, 96), {"depth": 12, "embed_dim": 48}),
    "beit_base_patch16_224": ((64, 64), {"img_size": 64, "depth": 3, "embed_dim": 48, "num_heads": 3}),
    "vit_small_patch14_dinov2": ((56, 84), {"depth": 3, "embed_dim": 96}),
    "eva02_tiny_patch14_224": ((56, 84), {"depth": 3}),
    "xcit_nano_12_p8_224": ((64, 96), {"depth": 3}),
    "cait_xxs24_224": ((64, 64), {"img_size": 64, "depth": 3}),
    "hiera_tiny_224": ((64, 64), {"img_size": 64, "embed_dim": 24}),
    "test_maxvit": ((160, 160), {}),
    "test_coatnet": ((160, 160), {}),
    "pvt_v2_b0": ((64, 96), {}),
    "twins_svt_small": ((64, 96), {"depths": [1, 1, 2, 1]}),
    "focalnet_tiny_srf": ((64, 96), {}),
    "nest_tiny": ((64, 64), {"img_size": 64}),
    "levit_128s": ((64, 64), {"img_size": 64}),
    "coat_tiny": ((64, 64), {"img_size": 64}),
    "mobilevit_xxs": ((64, 96), {}),
    "hrnet_w18_small": ((64, 96), {}),
    "davit_tiny": (
        (64, 96),
        {"depths": [1, 1, 1, 1], "embed_dims": [24, 48, 96, 192], "num_heads": [2, 2, 4, 4]},
    ),
    "test_mambaout": ((64, 96), {}),
    "poolformer_s12": ((64, 96), {}),
    "pit_ti_224": ((64, 64), {"img_size": 64}),
}
# of each kind one, which every suite tries; `slow` tries the others
QUICK = (
    "test_resnet test_efficientnet test_convnext2 test_vit swin_tiny_patch4_window7_224 test_coatnet pvt_v2_b0 "
    "mobilevit_xxs"
).split()
EVERY = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
# timm builds these whole, whatever is asked of them
NEVER_PRUNED = {"hrnet_w18_small", "pit_ti_224"}


def config_of(name: str, **fields: object) -> TimmBackboneConfig:
    return TimmBackboneConfig(backbone=name, model_args=NETWORKS[name][1], **fields)


@cache
def whole(name: str) -> TimmBackbone:
    """A network with all maps selected, in eval mode."""
    torch.manual_seed(0)
    return TimmBackbone(config_of(name, out_features=config_of(name).selectable_names)).eval()


@cache
def picture(name: str) -> Tensor:
    return torch.rand(1, 3, *NETWORKS[name][0], generator=torch.Generator().manual_seed(1))


@cache
def all_maps(name: str) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        return whole(name)(picture(name)).feature_maps


@pytest.mark.parametrize("name", EVERY)
def test_maps_match_what_the_config_declares(name):
    config, (height, width) = whole(name).config, NETWORKS[name][0]
    first = 7 if name == "pit_ti_224" else -(-height // config.strides[0])  # its patches overlap, without padding
    declared = [(1, c, -(-height // s), -(-width // s)) for c, s in zip(config.channels, config.strides, strict=True)]
    shapes = [tuple(x.shape) for x in all_maps(name)]
    assert shapes[0][2] == first
    assert shapes[1:] == declared[1:]
    assert [shape[1] for shape in shapes] == config.channels
    assert config.strides == sorted(config.strides)


@pytest.mark.parametrize("name", EVERY)
def test_a_selection_gives_the_same_maps_and_hidden_states_give_all(name):
    net, maps = whole(name), all_maps(name)
    everything = net.out_features
    try:
        net.out_indices = [-1]
        with torch.inference_mode():
            output = net(picture(name), output_hidden_states=True)
        assert net.out_features == everything[-1:]
        torch.testing.assert_close(output.feature_maps, maps[-1:], rtol=0, atol=0)
        torch.testing.assert_close(output.hidden_states, maps, rtol=0, atol=0)
    finally:
        net.out_features = everything


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("which", [0, -1])
def test_a_gradient_reaches_every_trainable_parameter(name, which):
    config = config_of(name, out_features=[config_of(name).selectable_names[which]])
    with torch.device("meta"):
        net = TimmBackbone(config)
        (x,) = net(torch.empty(2, 3, *NETWORKS[name][0])).feature_maps
    trainable = [p for p in net.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(x.sum(), trainable, allow_unused=True)
    assert trainable
    assert all(gradient is not None for gradient in gradients)
    if which == 0 and name not in NEVER_PRUNED:
        assert len(trainable) == len([*net.parameters()]) < len([*whole(name).parameters()])


@pytest.mark.long
@pytest.mark.parametrize("name", EVERY)
def test_parameters_are_ordered_by_stage_and_by_depth(name):
    net = whole(name)
    stages, layers = net.parameter_stages(), net.parameter_layers()
    names = [key for key, _ in net.named_parameters()]
    assert [*stages] == [*layers] == names
    assert {net.stage_names[stage] for stage in stages.values()} <= {*net.stage_names}
    assert sorted(set(layers.values())) == [*range(max(layers.values()) + 1)]
    if name not in NEVER_PRUNED:  # the first stage is what is left when only its map is asked for
        with torch.device("meta"):
            first = TimmBackbone(config_of(name, out_features=net.out_features[:1]))
        assert {key for key, stage in stages.items() if stage == 0} == {key for key, _ in first.named_parameters()}


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_a_training_step_leaves_no_parameter_without_a_gradient(name):
    net = TimmBackbone(config_of(name, out_indices=[1, 2])).train()
    sum(x.mean() for x in net(picture(name).repeat(2, 1, 1, 1)).feature_maps).backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "swin_tiny_patch4_window7_224"])
def test_recomputed_activations_give_the_same_gradients(name):
    torch.manual_seed(0)
    net = TimmBackbone(config_of(name, drop_path_rate=0.0, out_indices=[1, 2])).train()
    gradients = []
    for _ in range(2):
        maps = net(picture(name).repeat(2, 1, 1, 1)).feature_maps
        gradients.append(torch.autograd.grad(sum(x.square().mean() for x in maps), [*net.parameters()]))
        net.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_a_network_without_recomputation_says_so():
    with pytest.raises(ValueError, match="hrnet_w18_small cannot recompute its activations"):
        whole("hrnet_w18_small").gradient_checkpointing_enable()


def test_stages_stand_in_the_order_of_the_network_not_of_the_alphabet():
    config = config_of("deit_tiny_distilled_patch16_224", out_features=["blocks.3", "blocks.11"])
    assert config.stage_names == [f"blocks.{i}" for i in range(12)]
    assert config.out_indices == [3, 11]


def test_indices_count_from_the_end_and_strides_select():
    assert config_of("test_resnet", out_indices=[-3, -1]).out_features == ["layer2", "layer4"]
    assert config_of("test_resnet", out_strides=[4, 32]).out_features == ["layer1", "layer4"]
    assert TimmBackboneConfig(backbone="resnet50").out_features == ["layer4"]


def test_output_stride_dilates():
    net = TimmBackbone(TimmBackboneConfig(backbone="test_resnet", output_stride=16, out_indices=[3, 4])).eval()
    assert net.strides == [16, 16]
    with torch.inference_mode():
        assert [tuple(x.shape[2:]) for x in net(torch.zeros(1, 3, 64, 96)).feature_maps] == [(4, 6), (4, 6)]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "vit_small_patch14_dinov2"])
def test_any_height_and_width(name):
    net, stride = whole(name), whole(name).strides[-1]
    with torch.inference_mode():
        x = net(torch.rand(1, 3, 75, 50)).feature_maps[-1]
    assert tuple(x.shape[2:]) == (-(-75 // stride), -(-50 // stride))


def test_frozen_batch_norm_neither_trains_nor_follows_the_data():
    net = TimmBackbone(TimmBackboneConfig(backbone="test_resnet", freeze_batch_norm_2d=True)).train()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())
    assert not any("bn" in name for name, _ in net.named_parameters())
    before = {name: value.clone() for name, value in net.named_buffers()}
    net(torch.rand(2, 3, 64, 64))
    torch.testing.assert_close(dict(net.named_buffers()), before, rtol=0, atol=0)


@pytest.mark.long
def test_making_a_config_draws_no_random_number_and_imports_nothing_early():
    state = torch.get_rng_state()
    config_of("test_vit", num_channels=5)
    assert torch.equal(state, torch.get_rng_state())
    code = "import sys, bbframe.timm_backbone.backbone; assert not {'timm', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_stage_that_was_not_built_cannot_be_selected_later():
    net = TimmBackbone(config_of("test_resnet", out_indices=[2]))
    net.out_indices = [1]
    with pytest.raises(ValueError, match="layer4 was not built: this backbone ends at layer2"):
        net.out_features = ["layer4"]
    assert net.out_features == ["layer1"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone": "resnt50"}, "backbone='resnt50': timm has no such network; did you mean 'resnet50'"),
        ({"backbone": "resnet50.a1in1k"}, "timm has no weights 'resnet50.a1in1k'; did you mean 'resnet50.a1_in1k'?"),
        ({"backbone": "local-dir:/no/such"}, "/no/such: no such folder"),
        ({"features_only": False}, "features_only must stay true"),
        ({"output_stride": 8, "backbone": "davit_tiny"}, "davit_tiny takes no 'output_stride'; leave it null"),
        ({"drop_path_rate": 0.1, "backbone": "vgg11"}, "vgg11 takes no 'drop_path_rate'; leave it null"),
        ({"model_args": {"img_sizes": 64}, "backbone": "test_vit"}, "takes no 'img_sizes'; did you mean 'img_size'?"),
        ({"model_args": {"in_chans": 1}}, "model_args may not hold 'in_chans'; set num_channels itself"),
        ({"model_args": {"checkpoint_path": "x.pth"}}, "model_args may not hold 'checkpoint_path'"),
        ({"model_args": {"depths": [1]}, "backbone": "focalnet_tiny_srf"}, "fixes 'depths' itself"),
        ({"model_args": {"act_layer": len}}, "must be plain data"),
        ({"out_features": ["layer5"]}, "no stage 'layer5'; did you mean 'layer"),
        ({"out_indices": [0], "backbone": "tresnet_m"}, "timm does not expose the map of level:0 in tresnet_m"),
    ],
)
def test_what_timm_cannot_do_is_an_error_of_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        TimmBackboneConfig(**fields)
    assert "\n" not in str(error.value)


def test_attentions_are_refused():
    with pytest.raises(ValueError, match="timm_backbone has no attention maps"):
        whole("test_vit")(picture("test_vit"), output_attentions=True)


# weights


@pytest.fixture
def checkpoint(tmp_path):
    """A folder in timm's layout: a whole classifier with weights of its own."""

    def make(name: str, **arguments: object) -> object:
        torch.manual_seed(7)
        model = timm.create_model(name, **arguments)
        timm.models.save_for_hf(model, tmp_path / name, safe_serialization=True)
        return tmp_path / name

    return make


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_convnext",
        "test_vit",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("test_efficientnet", "hrnet_w18_small")),
    ],
)
def test_timms_weights_give_timms_maps(name, checkpoint):
    folder = checkpoint(name)
    net = TimmBackbone.from_pretrained(f"local-dir:{folder}", out_indices=[1, 2])
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True, out_indices=[1, 2]).eval()
    x = torch.rand(1, 3, *theirs.pretrained_cfg["input_size"][1:])
    with torch.inference_mode():
        torch.testing.assert_close([*net(x).feature_maps], [*theirs(x)], rtol=1e-5, atol=1e-5)
    report = net.load_report
    assert {*report.loaded} == {*net.state_dict()}
    assert not report.fresh
    assert bool(report.not_built) == (name not in NEVER_PRUNED)
    assert any("classifier" in key or "fc." in key or "head." in key for key in report.ignored)
    assert list(report.sha256) == ["model.safetensors"]
    assert net.config.backbone == name
    assert not net.training


@pytest.mark.long
def test_use_pretrained_backbone_is_honoured(checkpoint, tmp_path):
    folder = checkpoint("test_resnet")
    trained = TimmBackbone.from_pretrained(folder)
    fields = {"backbone": f"local-dir:{folder}"}
    net = TimmBackbone(TimmBackboneConfig(**fields, use_pretrained_backbone=True))
    torch.testing.assert_close(net.state_dict(), trained.state_dict(), rtol=0, atol=0)
    assert net.load_report.loaded
    data = {"model_type": "timm_backbone", **fields, "use_pretrained_backbone": True}
    assert AutoBackbone.from_config(data).load_report.loaded
    assert AutoBackbone.from_config({**data, "use_pretrained_backbone": False}).load_report is None
    assert TimmBackbone(TimmBackboneConfig(**fields)).load_report is None
    net.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["use_pretrained_backbone"] is False, "its weights lie beside it"
    with pytest.raises(ValueError, match="timm_backbone: unknown option 'use_pretrained_backbone'"):
        make_backbone(data)


def test_the_preprocessing_is_that_of_the_checkpoint(checkpoint):
    folder = checkpoint("test_resnet")
    data = json.loads((folder / "config.json").read_text())
    data["pretrained_cfg"] |= {"mean": [0.1, 0.2, 0.3], "interpolation": "bilinear", "crop_pct": 0.5}
    (folder / "config.json").write_text(json.dumps(data))
    net = AutoBackbone.from_pretrained(folder, use_timm_backbone=True)
    assert net.preprocessing.mean == (0.1, 0.2, 0.3)
    assert (net.preprocessing.interpolation, net.preprocessing.crop_pct) == ("bilinear", 0.5)
    assert net.preprocessing.size == (160, 160)


def test_every_misfit_of_a_checkpoint_is_listed(checkpoint):
    folder = checkpoint("test_resnet")
    tensors = load_file(folder / "model.safetensors")
    del tensors["layer1.0.bn1.bias"], tensors["layer2.0.conv1.weight"]
    tensors["conv1.0.weight"] = torch.zeros(5, 3, 3, 3)
    tensors["banana.weight"] = torch.zeros(1)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="does not fit timm_backbone") as error:
        TimmBackbone.from_pretrained(f"local-dir:{folder}")
    for line in (
        "2 missing, 1 unexpected, 1 of another shape",
        "missing: layer1.0.bn1.bias",
        "missing: layer2.0.conv1.weight",
        "unexpected: banana.weight",
        r"shape: conv1.0.weight [5, 3, 3, 3] instead of",
    ):
        assert line in str(error.value)


def test_a_missing_tensor_of_an_unbuilt_stage_is_nobodys_loss(checkpoint):
    folder = checkpoint("test_resnet")
    tensors = load_file(folder / "model.safetensors")
    del tensors["layer4.0.conv1.weight"]
    save_file(tensors, folder / "model.safetensors")
    assert TimmBackbone.from_pretrained(folder, out_indices=[2]).load_report.loaded


@pytest.mark.parametrize("channels", [1, 4])
def test_another_number_of_channels_adapts_the_stem_and_says_so(channels, checkpoint):
    folder = checkpoint("test_resnet")
    net = TimmBackbone.from_pretrained(folder, num_channels=channels)
    full = TimmBackbone.from_pretrained(folder)
    grey = torch.rand(1, 1, 64, 64)
    assert net.load_report.adapted == {"_backbone.conv1.0.weight": f"3 input channels to {channels}"}
    with torch.inference_mode():
        expected, got = full(grey.repeat(1, 3, 1, 1)), net(grey.repeat(1, channels, 1, 1))
    if channels == 1:  # the sum of the colours answers to grey as the colours did
        torch.testing.assert_close(got.feature_maps, expected.feature_maps, rtol=1e-4, atol=1e-4)


def test_resized_positions_are_reported(checkpoint):
    folder = checkpoint("test_vit")
    net = TimmBackbone.from_pretrained(folder, model_args={"img_size": 64})
    assert net.load_report.adapted == {"_backbone.model.pos_embed": "resized by timm from [1, 101, 64] to [1, 17, 64]"}


@pytest.mark.long
def test_weights_out_of_reach_are_one_line_that_says_which_file_and_how_to_get_it(tmp_path):
    with pytest.raises(ValueError, match=r"timm/resnet18.a1_in1k: model.safetensors: .*hf download") as error:
        AutoBackbone.from_pretrained("timm/resnet18.a1_in1k", cache_dir=str(tmp_path), local_files_only=True)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="the Hub has no weights of timm's resnet50_mlp; leave pretrained off"):
        TimmBackbone.from_pretrained("resnet50_mlp")


def test_a_revision_of_a_folder_is_refused(checkpoint):
    with pytest.raises(ValueError, match="revision='main' is for the Hub, this is local"):
        TimmBackbone.from_pretrained(checkpoint("test_resnet"), revision="main")


def test_every_tensor_of_a_network_with_ambiguous_names_has_one_place():
    net = TimmBackboneConfig(backbone="inception_resnet_v2").network  # `repeat_1` stands beside `repeat.1`
    names = Names(net)
    theirs = [names.theirs(f"_backbone.{name}")[0] for name in net.features.state_dict()]
    assert {*theirs} <= {*net.full.state_dict()}
    assert len({*theirs}) == len(theirs)
    assert [names.ours(name).removeprefix("_backbone.") for name in theirs] == [*net.features.state_dict()]


@pytest.mark.parametrize("name", ["test_resnet", "swin_tiny_patch4_window7_224", "test_vit"])
@pytest.mark.parametrize("frozen", [False, True])
def test_save_and_reload_bit_for_bit(name, frozen, tmp_path):
    net = TimmBackbone(config_of(name, out_indices=[1, 2], freeze_batch_norm_2d=frozen)).eval()
    net.save_pretrained(tmp_path)
    again = AutoBackbone.from_pretrained(tmp_path)
    assert again.config == net.config
    assert again.preprocessing == net.preprocessing
    assert {*again.load_report.loaded} == {*net.state_dict()}
    torch.testing.assert_close(again.state_dict(), net.state_dict(), rtol=0, atol=0)
    with torch.inference_mode():
        ours, theirs = net(picture(name)).feature_maps, again(picture(name)).feature_maps
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert all(key.startswith("_backbone.") for key in load_file(tmp_path / "model.safetensors"))
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "timm_backbone"
    fewer = TimmBackbone.from_pretrained(tmp_path, out_indices=[1])
    assert fewer.load_report.not_built


# timm's version of a native architecture


@pytest.mark.long
@pytest.mark.parametrize(
    ("native", "timm_name", "indices"),
    [
        ({"model_type": "resnet"}, "resnet50", [0, 2]),
        ({"model_type": "resnet", "layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]},
         "resnet18", [0]),
        ({"model_type": "convnextv2", "depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]},
         "convnextv2_atto", [0, 3]),
        ({"model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6}, "vit_small_patch14_dinov2", [1, 4]),
    ],
)  # fmt: skip
def test_source_timm_keeps_names_indices_channels_and_strides(native, timm_name, indices):
    own, theirs = (
        make_backbone({**native, "out_indices": indices, "source": source, "timm_name": timm_name}).eval()
        for source in ("transformers", "timm")
    )
    assert isinstance(theirs, TimmBackbone)
    assert theirs.config.stages == own.config.stages
    assert (theirs.out_indices, theirs.out_features) == (own.out_indices, own.out_features)
    x = torch.rand(1, 3, 56, 84) if own.strides[0] == 14 else torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert [y.shape for y in theirs(x).feature_maps] == [y.shape for y in own(x).feature_maps]
    assert sum(p.numel() for p in theirs.parameters()) == pytest.approx(sum(p.numel() for p in own.parameters()), 0.1)
    ours, others = (set(net.parameter_stages().values()) for net in (own, theirs))
    assert ours == others


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model_type": "resnet", "timm_name": "resnet18"},
            "resnet18 of timm is not the network that resnet describes",
        ),
        ({"model_type": "dinov2", "num_hidden_layers": 13}, "is not the network that dinov2 describes"),
        ({"model_type": "dinov2", "num_hidden_layers": 11}, "is not the network that dinov2 describes"),
        ({"model_type": "dinov2", "out_features": ["stem"]}, "does not expose the map of stem .* choose from: stage1"),
    ],
)
def test_source_timm_refuses_another_network_and_a_hidden_stem(options, message):
    with pytest.raises(ValueError, match=message):
        make_backbone({"timm_name": "vit_base_patch14_dinov2", "source": "timm", **options})


@pytest.mark.long
def test_source_timm_survives_saving(tmp_path):
    net = make_backbone({"model_type": "resnet", "source": "timm", "timm_name": "resnet50", "out_indices": [0, 1]})
    net.save_pretrained(tmp_path)
    again = AutoBackbone.from_pretrained(tmp_path)
    assert again.out_features == ["stem", "stage1"]
    torch.testing.assert_close(again.state_dict(), net.state_dict(), rtol=0, atol=0)


def test_a_configuration_file_of_timm_takes_timms_name_alone():
    net = make_backbone({"model_type": "timm_backbone", "name": "test_resnet", "out_strides": [8], "revision": None})
    assert net.out_features == ["layer2"]
    with pytest.raises(ValueError, match="unknown option 'timm_name'; did you mean 'name'"):
        make_backbone({"model_type": "timm_backbone", "timm_name": "test_resnet"})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_it_compiles_without_a_graph_break(name):
    net = TimmBackbone(config_of(name, out_indices=[1, 2])).eval()
    with torch.no_grad():
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")(picture(name)).feature_maps
        torch.testing.assert_close(compiled, net(picture(name)).feature_maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "args", "size"),
    [
        ("test_maxvit", {}, (96, 200)),  # multiples of its windows
        ("test_coatnet", {}, (96, 128)),  # the size it is made for
        ("hiera_tiny_224", {"img_size": 64, "embed_dim": 24}, (40, 64)),
        ("levit_128s", {"img_size": 64}, (33, 50)),
        ("beit_base_patch16_224", {"img_size": 64, "depth": 3, "embed_dim": 48, "num_heads": 3}, (48, 64)),
        ("swin_tiny_patch4_window7_224", {"depths": [1, 1, 1, 1], "embed_dim": 24}, (61, 70)),
    ],
)
def test_networks_bound_to_a_size_take_padded_images_and_their_maps_are_cropped(name, args, size):
    config = TimmBackboneConfig(backbone=name, model_args=args)
    config.out_features = config.selectable_names
    net = TimmBackbone(config).eval()
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        maps = net(x).feature_maps
        padded = net._sizes.padded(*size)
        whole = net(torch.nn.functional.pad(x, (0, padded[1] - size[1], 0, padded[0] - size[0]))).feature_maps
    assert [tuple(y.shape[1:]) for y in maps] == [
        (c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(net.channels, net.strides, strict=True)
    ]
    for part, all_of_it in zip(maps, whole, strict=True):
        assert torch.equal(part, all_of_it[:, :, : part.shape[2], : part.shape[3]])


def test_images_larger_than_a_network_takes_are_one_line_that_says_what_to_set():
    config = TimmBackboneConfig(backbone="hiera_tiny_224", model_args={"img_size": 64, "embed_dim": 24})
    with pytest.raises(ValueError, match=r"^timm_backbone: hiera_tiny_224 takes images of 64 x 64 pixels, ") as error:
        TimmBackbone(config)(torch.zeros(1, 3, 96, 128))
    assert "not 96 x 128; set backbone.model_args={img_size: [128, 128]}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_networks_for_any_size_are_not_padded(name):
    assert whole(name)._sizes is None


def test_the_size_that_a_checkpoint_fixes_is_written_down(tmp_path):
    data = {"architecture": "test_vit", "pretrained_cfg": {"input_size": [3, 96, 96], "fixed_input_size": True}}
    (tmp_path / "config.json").write_text(json.dumps(data))
    config = TimmBackboneConfig(backbone=f"local-dir:{tmp_path}")
    again = TimmBackboneConfig.from_dict(config.to_dict())
    assert again.backbone == "test_vit"
    assert again.network.input_size == config.network.input_size == (96, 96)


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"depth": 10**8}, "depth=100000000 must be at most 1000"),
        ({"mlp_ratio": 1e30}, "mlp_ratio=1e\\+30 must be at most 1000000"),
        ({"patch_size": 0}, "ZeroDivisionError"),
        ({"num_heads": 0}, "ZeroDivisionError"),
        ({"embed_dim": -192}, "negative dimension"),
    ],
)
def test_impossible_sizes_are_refused_in_one_line_at_once(args, why):
    with pytest.raises(ValueError, match=rf"^timm_backbone: .*{why}") as error:
        TimmBackboneConfig(backbone="vit_tiny_patch16_224", model_args=args)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("classes", [10**12, "many", -3, None])
def test_how_many_classes_a_folder_states_costs_no_memory(classes, tmp_path):
    whole = timm.create_model("test_resnet")
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_resnet", "num_classes": classes}))
    net = AutoBackbone.from_pretrained(tmp_path)
    theirs = whole.state_dict()
    assert all(torch.equal(value, theirs[net._names.theirs(key)[0]]) for key, value in net.state_dict().items())
