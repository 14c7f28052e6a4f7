"""The registry, `AutoBackbone`, and backbones as configuration files describe them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import re
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

import bbframe
from bbframe import AutoBackbone, list_backbones, make_backbone, register, registry
from bbframe.auto import backbone_class, config_from_dict
from bbframe.factory import check_backbone

from .own import HostedBackbone, OwnBackbone, OwnConfig
from .tiny import example, names, tiny, tiny_config

every_name = pytest.mark.parametrize("name", names())


# one's own backbone


@pytest.fixture
def forgetful(monkeypatch):
    """The registry forgets after a test what the test registered; ours are all registered before."""
    for name in list_backbones():
        backbone_class(name)
    for table in ("_parts", "_plugins"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    yield
    registry._load_entry_points.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_ones_own_backbone_does_all_that_ours_do(tmp_path):
    assert register(OwnBackbone) is OwnBackbone
    assert register(OwnBackbone) is OwnBackbone  # once more is no harm
    assert "own_net" in list_backbones()
    net = AutoBackbone.from_config({"model_type": "own-net", "width": 6, "out_indices": [0, 1]})
    assert type(net) is OwnBackbone
    assert (net.channels, net.strides) == ([6, 6], [1, 2])
    assert type(AutoBackbone.from_config({"model_type": "own_net"})) is OwnBackbone
    net.save_pretrained(tmp_path)
    again = AutoBackbone.from_pretrained(tmp_path, out_features=["stem"])
    assert set(again.load_report.not_built) == {"layer.0.weight", "layer.0.bias"}
    x = torch.randn(1, 3, 4, 6)
    assert torch.equal(again(x).feature_maps[0], net(x).feature_maps[0])
    assert type(make_backbone({"model_type": "own-net", "width": 2})) is OwnBackbone


# a backbone inside of a bigger model's checkpoint


@pytest.fixture
def detector(forgetful, tmp_path):
    """The checkpoint of a detector around `HostedBackbone`, and the backbone itself."""
    register(HostedBackbone)
    net = HostedBackbone(OwnConfig(width=6, out_indices=[0, 1]))
    inside = {f"model.trunk.{part}": value for key, value in net.state_dict().items() for part in net.keys.theirs(key)}
    save_file({**inside, "head.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    data = {"model_type": "own-detector", "backbone_config": {"model_type": "own", "width": 6}, "queries": 9}
    (tmp_path / "config.json").write_text(json.dumps(data))
    return tmp_path, net


def _same_weights(one, two):
    return all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.long
def test_a_backbone_is_found_inside_of_a_bigger_model(detector):
    folder, net = detector
    with pytest.raises(ValueError, match="a checkpoint of 'own-detector', not of 'resnet'; choose the backbone"):
        bbframe.ResNetBackbone.from_pretrained(folder)
    nothing = {"model_type": "own-net", "checkpoint": str(folder), "pretrained": True}
    for loaded in (
        AutoBackbone.from_pretrained(folder),
        HostedBackbone.from_pretrained(folder),
        make_backbone(nothing),
        make_backbone({**nothing, "width": 6, "out_indices": [1]}),
        AutoBackbone.from_pretrained(folder, config=net.config),
        AutoBackbone.from_pretrained(folder / "model.safetensors", config=net.config),
    ):
        assert type(loaded) is HostedBackbone
        assert loaded.config.width == 6
        assert _same_weights(loaded, net)
        assert loaded.load_report.ignored == ["head.weight"]
    report = AutoBackbone.from_pretrained(folder, out_indices=[0]).load_report
    assert report.unknown_config == ["novelty"]
    assert report.not_built == ["layer.0.bias", "layer.0.weight"]


def test_what_a_bigger_model_settles_cannot_be_set_otherwise(detector):
    folder, _ = detector
    options = {"model_type": "own-net", "checkpoint": str(folder), "pretrained": True, "num_channels": 1}
    assert make_backbone(options).config.num_channels == 1
    with pytest.raises(ValueError, match=r"own-net: the checkpoint .* has width=6 \(here 5\); choose the variant of"):
        make_backbone({**options, "width": 5})


@pytest.mark.long
def test_a_bigger_model_with_several_or_no_backbones_of_ours_says_so(detector):
    folder, _ = detector

    class Twin(HostedBackbone):
        @dataclass(kw_only=True)
        class TwinConfig(OwnConfig):
            model_type: ClassVar[str] = "twin-net"

        config_class = TwinConfig

    register(Twin)
    with pytest.raises(ValueError, match="own-detector may become several backbones") as error:
        AutoBackbone.from_pretrained(folder)
    assert str(error.value).endswith("load it by the from_pretrained of HostedBackbone or Twin")
    assert type(Twin.from_pretrained(folder)) is Twin
    assert type(make_backbone({"model_type": "twin-net", "checkpoint": str(folder), "pretrained": True})) is Twin
    data = {"model_type": "own-detector", "backbone_config": {"model_type": "other"}}
    (folder / "config.json").write_text(json.dumps(data))
    for load in (AutoBackbone.from_pretrained, HostedBackbone.from_pretrained):
        with pytest.raises(ValueError, match=r"json: own-detector holds another backbone than (HostedB|own-net)"):
            load(folder)


# the registry


@pytest.mark.usefixtures("forgetful")
def test_a_taken_name_is_refused():
    resnet = backbone_class("resnet")

    class Impostor(OwnBackbone):
        config_class = resnet.config_class

    with pytest.raises(ValueError, match=r"'resnet' is taken by bbframe\.models\.resnet:ResNetBackbone; choose"):
        register(Impostor)


@pytest.mark.usefixtures("forgetful")
@every_name
def test_the_name_of_one_of_ours_is_taken_before_it_is_imported(name, monkeypatch):
    model_type = backbone_class(name).config_class.model_type
    monkeypatch.delitem(registry._parts, ("backbone", name))

    @dataclass(kw_only=True)
    class ImpostorConfig(OwnConfig):
        pass

    class Impostor(OwnBackbone):
        config_class = ImpostorConfig

    ImpostorConfig.model_type = model_type
    with pytest.raises(ValueError, match=rf"backbone '{name}' is taken by bbframe\.models\.{name}; choose another"):
        register(Impostor)


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("name", ["resnet", "maskformer-swin", "maskformer_swin", "dinov2_backbone", "timm_backbone"])
def test_no_spelling_of_a_taken_name_is_free(name):
    """A backbone is found by its name in the form of file names, so every form of it is the same name."""
    with pytest.raises(ValueError, match=r"is taken by bbframe\.(models|timm_backbone)"):
        register("backbone", name, OwnConfig)(OwnBackbone)


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("group", ["bbframe.parts", "bbframe.backbones"])
@pytest.mark.parametrize("value", [f"{OwnBackbone.__module__}:OwnBackbone", "own_parts"], ids=["object", "module"])
def test_installed_packages_bring_backbones_by_entry_points(group, value, tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(
        "from bbframe import register\nfrom tests.own import OwnBackbone\nregister(OwnBackbone)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    point = importlib.metadata.EntryPoint("own-net", value, group)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == point.group else [])
    registry._load_entry_points.cache_clear()
    assert "own_net" in list_backbones()
    assert registry.find("backbone", "own-net").plugin == value.partition(":")[0]
    for name in ("own-net", "own_net"):
        assert type(AutoBackbone.from_config({"model_type": name})) is OwnBackbone
    with pytest.raises(ValueError, match="no backbone 'own-nut'; did you mean 'own_net'"):
        backbone_class("own-nut")


# names


@every_name
def test_an_architecture_is_found_by_its_name_and_its_attributes(name):
    backbone = backbone_class(name)
    config_class = backbone.config_class
    assert backbone_class(config_class.model_type) is backbone
    assert getattr(bbframe, backbone.__name__) is backbone
    assert getattr(bbframe, config_class.__name__) is config_class
    stem = config_class.__name__.removesuffix("Config").removesuffix("Backbone")
    assert backbone.__name__.removesuffix("Backbone") == stem
    assert type(AutoBackbone.from_config(tiny_config(name))) is backbone
    assert config_from_dict({"model_type": config_class.model_type}) == config_class()


def test_the_package_has_its_names_and_no_others():
    assert set(bbframe.__all__) <= set(dir(bbframe))
    for attribute in bbframe.__all__:
        assert getattr(bbframe, attribute) is not None
    for attribute in ("NoBackbone", "NoConfig", "Config", "resnetbackbone", "torch2"):
        with pytest.raises(AttributeError, match=f"module 'bbframe' has no attribute {attribute!r}"):
            getattr(bbframe, attribute)
    assert not hasattr(bbframe, "ResnetBackbone")
    assert list_backbones() == sorted(list_backbones())
    assert {"resnet", "convnextv2", "dinov2", "timm"} <= set(list_backbones())


def test_auto_backbone_is_not_made_itself():
    with pytest.raises(TypeError, match="use from_config or from_pretrained"):
        AutoBackbone()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"model_type": "convnextv3"}, "no backbone 'convnextv3'; did you mean 'convnextv2'?"),
        ({"depths": [1]}, "a backbone's config must have a model_type; choose from: "),
        ({"model_type": "resnet", "dephts": [1]}, "resnet: unknown option 'dephts'; did you mean 'depths'?"),
        ({"model_type": "resnet", "depths": [1, "2"]}, "resnet: depths[1]='2' must be an integer"),
        (
            {"model_type": "resnet", "depths": [1]},
            "resnet: depths=[1] and hidden_sizes=[256, 512, 1024, 2048] must be",
        ),
        ({"model_type": "resnet", "layer_type": "basci"}, "resnet: layer_type='basci'; did you mean 'basic'?"),
        (
            {"model_type": "dinov2", "hidden_size": 10},
            "dinov2: hidden_size=10 must be a multiple of num_attention_hea",
        ),
        ({"model_type": "swin", "patch_size": 0}, "swin: patch_size=0 must be an integer within 1..512 pixels"),
        (
            {"model_type": "bit", "hidden_sizes": [8, 0, 8, 8]},
            "bit: hidden_sizes[1]=0 must be an integer within 1..32768",
        ),
        ({"model_type": "nat", "drop_path_rate": 1}, "nat: drop_path_rate=1 must be a number at least 0 and below 1"),
        (
            {"model_type": "beit", "hidden_dropout_prob": -1.0},
            "beit: hidden_dropout_prob=-1.0 must be a number at least 0",
        ),
        ({"model_type": "dinov2", "image_size": [28, 7]}, "dinov2: image_size=[28, 7] must be at least patch_size=14"),
        ({"model_type": "resnet", "hidden_act": "rleu"}, "resnet: hidden_act='rleu'; did you mean 'relu'?"),
    ],
)
def test_wrong_configs_are_refused(data, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        AutoBackbone.from_config(data)


def test_a_backbone_takes_its_own_config():
    with pytest.raises(ValueError, match="ResNetBackbone takes a ResNetConfig, not a Dinov2Config"):
        bbframe.ResNetBackbone(bbframe.Dinov2Config())


@every_name
def test_a_backbone_takes_no_other_ones_config(name):
    """Nor that of a sibling whose config is made from its own."""
    for other in set(names()) - {name}:
        with pytest.raises(ValueError, match="takes a"):
            backbone_class(name)(tiny_config(other))


@every_name
def test_configs_are_keyword_only_and_hold_tuples(name):
    config_class = backbone_class(name).config_class
    with pytest.raises(TypeError):
        config_class(1)
    data = tiny_config(name).to_dict()
    config = config_class.from_dict(data)
    assert config == tiny_config(name)
    for field in dataclasses.fields(config):
        assert not isinstance(getattr(config, field.name), list)


# another library's config


class TheirConfig:
    """A config as another library has it: a `model_type`, `to_dict()`, and much that is no part of a backbone."""

    def __init__(self, **fields):
        self.fields = {"chunk_size_feed_forward": 0, "id2label": {0: "cat"}, "_name_or_path": "", **fields}
        self.model_type = fields.get("model_type")
        self.backbone_config = fields.get("backbone_config")

    def to_dict(self):
        return self.fields


@every_name
def test_the_config_of_another_library_makes_our_backbone(name, tmp_path):
    net = tiny(name, out_indices=[0, 1])
    net.save_pretrained(tmp_path)
    theirs = TheirConfig(**net.config.to_dict())
    detector = TheirConfig(model_type="some-detector", backbone_config=theirs)
    for config in (theirs, detector):
        assert AutoBackbone.from_config(config).config == net.config
        loaded = AutoBackbone.from_pretrained(tmp_path, config=config, out_indices=[1])
        assert loaded.out_indices == [1]
        assert loaded.load_report.loaded
    assert type(net).from_pretrained(tmp_path, config=theirs).config == net.config


def test_the_config_of_another_library_for_something_else_is_refused():
    with pytest.raises(ValueError, match=r"^TheirConfig: no backbone 'bert'; "):
        AutoBackbone.from_config(TheirConfig(model_type="bert"))
    with pytest.raises(
        ValueError, match=r"^TheirConfig: resnet: depths\[0\]=0 must be an integer within 1..256 blocks"
    ):
        AutoBackbone.from_config(TheirConfig(model_type="resnet", depths=[0]))
    with pytest.raises(ValueError, match=r"^config=7 must be a config, or a mapping with a model_type"):
        AutoBackbone.from_config(7)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@every_name
def test_the_config_of_transformers_makes_our_backbone(name):
    transformers = pytest.importorskip("transformers")
    config = tiny_config(name, out_indices=[0, 1] if tiny_config(name).stem_in_files else [1, 2])
    if not hasattr(transformers, type(config).__name__):
        pytest.skip("transformers no longer has it")
    theirs = transformers.AutoConfig.for_model(**config.to_dict())
    assert AutoBackbone.from_config(theirs).config == config
    if name == "resnet":
        detector = transformers.DetrConfig(backbone_config=theirs, use_timm_backbone=False, backbone=None)
        assert AutoBackbone.from_config(detector).config == config


# a configuration file's data


@every_name
def test_a_file_describes_a_backbone(name):
    config = tiny_config(name, out_indices=[0, 1])
    options = {**_fields(config), "source": "transformers", "checkpoint": None, "revision": None, "pretrained": False}
    checked = check_backbone(options)
    assert checked.source.source == "transformers"
    assert checked.config == config
    net = make_backbone(options)
    assert net.config == config
    assert net.load_report is None
    assert len(net(example(net)).feature_maps) == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"model_type": "convnextv3"}, "no backbone 'convnextv3'; did you mean 'convnextv2'?"),
        ({}, "no backbone ''; choose from: "),
        ({"out_indicez": [1]}, "unknown option 'out_indicez'; did you mean 'out_indices'?"),
        ({"pretraind": True}, "unknown option 'pretraind'; did you mean 'pretrained'?"),
        ({"id2label": {}}, "unknown option 'id2label'"),
        ({"pretrained": "yes"}, "pretrained='yes' must be true or false"),
        ({"source": "tim"}, "source='tim'; did you mean 'timm'?"),
        ({"source": "timm"}, "source=timm needs timm_name, the name that timm gives this network"),
        ({"pretrained": True}, "pretrained=true needs backbone.checkpoint=..., an id on the Hub, a folder or file"),
        ({"out_indices": [3, 1]}, "out_indices=[3, 1] must rise within 0..4 (0=stem, 1=stage1, 2=stage2, 3=stage3"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_built(options, text):
    whole = options if not options or "model_type" in options else {"model_type": "convnextv2", **options}
    prefix = "" if text.startswith("no backbone") else "convnextv2: "
    for read in (check_backbone, make_backbone):
        with pytest.raises(ValueError, match=f"^{re.escape(prefix + text)}"):
            read(whole)


@every_name
def test_nulls_take_the_checkpoints_values(name, tmp_path):
    net = tiny(name)
    net.save_pretrained(tmp_path)
    nothing = dict.fromkeys(_fields(net.config))
    options = {**nothing, "model_type": name, "checkpoint": str(tmp_path), "pretrained": True}
    loaded = make_backbone(options)
    assert loaded.out_features == net.stage_names[-1:], "the selection is the file's own"
    loaded.out_features = net.stage_names
    assert loaded.config == net.config
    assert len(loaded.load_report.loaded) == len(net.state_dict())
    chosen = make_backbone({**options, "out_indices": [1], "num_channels": 1})
    assert (chosen.out_indices, chosen.config.num_channels) == ([1], 1)
    assert list(chosen.load_report.adapted.values()) == ["3 input channels to 1"]


def test_fields_that_the_checkpoint_contradicts_are_named(tmp_path):
    net = tiny("convnextv2")
    net.save_pretrained(tmp_path)
    options = {**_fields(net.config), "checkpoint": str(tmp_path), "pretrained": True, "drop_path_rate": 0.2}
    assert make_backbone(options).config.drop_path_rate == 0.2
    with pytest.raises(ValueError, match="choose the variant of that checkpoint") as error:
        make_backbone({**options, "depths": [3, 3, 9], "patch_size": 2})
    assert str(error.value) == (
        f"convnextv2: the checkpoint {tmp_path} has depths=(1, 2, 1) (here (3, 3, 9)), patch_size=4 (here 2); choose "
        "the variant of that checkpoint, or set these keys to null to take its values"
    )


def test_a_lone_weights_file_takes_the_files_own_config(tmp_path):
    net = tiny("resnet")
    net.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    file = tmp_path / "model.safetensors"
    loaded = make_backbone({**_fields(net.config), "checkpoint": str(file), "pretrained": True})
    assert loaded.config == net.config
    assert loaded.load_report.source == str(file)


def test_pretrained_without_network_and_cache_says_which_file_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"config\.json: the Hub cannot be reached.*`hf download microsoft/resnet-50"):
        make_backbone({"model_type": "resnet", "checkpoint": "microsoft/resnet-50", "pretrained": True})


def _fields(config):
    """The data of a configuration file that says all that a config says."""
    return {key: value for key, value in config.to_dict().items() if key not in config.derived_fields}
