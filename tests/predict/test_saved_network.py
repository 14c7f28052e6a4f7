"""A whole network saved to a folder and loaded again: equal results, and refusals of whatever does not fit."""

from __future__ import annotations

import getpass
import json
import re
import shutil
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file

import bbframe
from bbframe import AutoBackbone, registry
from bbframe.app import train
from bbframe.app.cli import COMMANDS
from bbframe.heads.classifier import LinearHead
from bbframe.heads.head_options import ClassifierOptions
from bbframe.predict.model_card import model_card
from bbframe.predict.saved_network import FORMAT
from bbframe.predict.trained_network import TrainedNetwork
from bbframe.predict.training_facts import TrainingFacts, public_overrides
from bbframe.tasks.optimizer_options import AdamWOptions
from tests.predict.networks import BACKBONES, HEADS, assert_equal_results, network, pictures, under
from tests.run.helpers import TINY

FEW = [("linear", "tiny_convnextv2"), ("mask_rcnn", "tiny_swin"), ("multi_level", "timm")]
MATRIX = [(head, backbone) for head in HEADS for backbone in [*BACKBONES, "timm"]]


@pytest.mark.long
@pytest.mark.parametrize(
    ("head", "backbone"),
    [pytest.param(*case, marks=[] if case in FEW else pytest.mark.slow, id="-".join(case)) for case in MATRIX],
)
def test_a_saved_network_gives_equal_results(head, backbone, tmp_path):
    net = under(head, backbone)
    net.save_pretrained(tmp_path)
    saved = bbframe.load(tmp_path)
    assert_equal_results(saved(pictures(), threshold=0), net(pictures(), threshold=0))
    for name in ("class_names", "category_ids", "preprocessing", "decoding", "calibration", "task_name", "fast"):
        assert getattr(saved, name) == getattr(net, name), name
    alone = AutoBackbone.from_pretrained(tmp_path)
    x = net.preprocessing(pictures()[1])[None]
    with torch.inference_mode():
        maps, theirs = net.backbone(x).feature_maps, alone(x).feature_maps
    assert all(torch.equal(*pair) for pair in zip(maps, theirs, strict=True))
    if net.task_name == "classification":
        assert torch.equal(alone.preprocessing(pictures()[1])[None], x)


@pytest.mark.long
def test_a_saved_run_is_the_run(digits_run, tmp_path):
    net = bbframe.load(digits_run)
    net.save_pretrained(tmp_path / "saved")
    saved = bbframe.load(tmp_path / "saved")
    assert saved.calibration.temperature is not None
    assert saved.familiarity is not None
    assert_equal_results(saved(pictures()), net(pictures()))
    metrics = json.loads((digits_run / "metrics.json").read_text())
    assert saved.facts.test == metrics["test"]
    assert saved.facts.test_low["accuracy"] == metrics["test_low"]["accuracy"]
    assert saved.facts.images == metrics["data_summary"]["images"]
    assert saved.facts.data == "digits"
    saved.save_pretrained(tmp_path / "again")
    for path in (tmp_path / "saved").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_nothing_in_it_says_where_or_by_whom(digits_run, tmp_path, monkeypatch):
    bbframe.load(digits_run).save_pretrained(tmp_path / "saved")
    content = b"".join(path.read_bytes() for path in (tmp_path / "saved").iterdir())
    for private in (str(tmp_path), str(digits_run), digits_run.name, str(digits_run.parents[3]), "outputs/"):
        assert private.encode() not in content
    assert re.search(rb"\b%s\b" % re.escape(getpass.getuser().encode()), content) is None


@pytest.mark.parametrize(
    ("override", "public"),
    [
        ("optim.lr=0.01", ["optim.lr=0.01"]),
        ("backbone=resnet50", ["backbone=resnet50"]),
        ("backbone.checkpoint=facebook/dinov2-small", ["backbone.checkpoint=facebook/dinov2-small"]),
        ("backbone.checkpoint=../mine/best.ckpt", ["backbone.checkpoint=..."]),
        ("data.root=flowers", ["data.root=..."]),
        ("data.train.annotations=a.json", ["data.train.annotations=..."]),
        ("data.x=~/photos", ["data.x=..."]),
        ("data.y=C:\\photos", ["data.y=..."]),
        ("data.z=here", ["data.z=..."]),
        ("logger.wandb.entity=anna", []),
        ("+logger=wandb", []),
        ("name=annas run", []),
        ("hydra.run.dir=x", []),
        ("tags=[anna]", []),
        ("output_dir=results", []),
        ("trainer.api_token=abcdef", ["trainer.api_token=***"]),
    ],
)
def test_a_command_for_strangers_has_no_paths(override, public, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert public_overrides([override]) == public


def test_metrics_belong_to_the_weights_that_were_tested(digits_run, tmp_path):
    shutil.copytree(digits_run / "checkpoints", tmp_path / "checkpoints")
    for name in ("config.yaml", "metrics.json"):
        shutil.copy(digits_run / name, tmp_path)
    assert bbframe.load(tmp_path / "checkpoints" / "best.ckpt").facts.test
    assert bbframe.load(tmp_path / "checkpoints" / "last.ckpt").facts.test == {}
    (tmp_path / "metrics.json").write_text("{")
    net = bbframe.load(tmp_path)  # predicts all the same
    with pytest.raises(ValueError, match=r"metrics\.json: cannot be read"):
        net.save_pretrained(tmp_path / "saved")


@pytest.fixture
def folder(tmp_path):
    under("linear", "tiny_convnextv2").save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_without_a_calibration_there_is_none(folder):
    net = bbframe.load(folder)
    net.calibration, net.familiarity = type(net.calibration)(), None
    net.save_pretrained(folder)
    assert not (folder / "calibration.safetensors").exists()
    assert bbframe.load(folder)(pictures()[0]).unfamiliar is None


def test_grey_networks_and_half_precision_travel(tmp_path):
    net = network("backbone=tiny_convnextv2", "backbone.num_channels=1", "data.image_size=32")
    net.save_pretrained(tmp_path / "grey")
    assert_equal_results(bbframe.load(tmp_path / "grey")(pictures()), net(pictures()))
    assert len(bbframe.load(tmp_path / "grey").preprocessing.mean) == 1
    half = bbframe.load(tmp_path / "grey").half()
    half.save_pretrained(tmp_path / "half")
    again = bbframe.load(tmp_path / "half")
    assert torch.equal(again.head.fc.weight, half.head.fc.weight.float())
    assert again.familiarity is not None


def test_a_plain_forward_stays_plain(tmp_path):
    net = network("backbone=tiny_convnextv2", "backbone.fast=false")
    assert net.fast  # the tests' helper says nothing of it
    net.fast = False
    net.save_pretrained(tmp_path)
    saved = bbframe.load(tmp_path)
    assert saved.fast is False
    assert not any("forward" in vars(module) for module in saved.backbone.modules())
    net.fast = True


def changed(folder, file="bbframe.json", **values):
    data = json.loads((folder / file).read_text())
    for key, value in values.items():
        *outer, last = key.split("__")
        inner = data
        for part in outer:
            inner = inner[part]
        if value is KeyError:
            del inner[last]
        else:
            inner[last] = value
    (folder / file).write_text(json.dumps(data))


WRONG = {
    "format": ({"format": FORMAT + 1}, r"bbframe\.json: format=2 is none that bbframe .* reads"),
    "no format": ({"format": KeyError}, r"format=None is none"),
    "a key": ({"colour": 1}, r"bbframe\.json: unknown option 'colour'"),
    "a key in decoding": ({"decoding__colour": 1}, r"unknown option 'colour'"),
    "missing": ({"class_names": KeyError}, "class_names must be given"),
    "names": ({"class_names": "abc"}, r"class_names='abc' must be a list"),
    "no classes": ({"class_names": [], "category_ids": []}, "one class or more"),
    "ids": ({"category_ids": [1]}, "category_ids has 1 values for 3 class_names"),
    "more classes": ({"class_names": ["a"] * 4, "category_ids": [1] * 4}, r"head\.safetensors: 2 tensors are not"),
    "huge": (
        {"class_names": ["a"] * 10**5, "category_ids": [1] * 10**5},
        r"fc\.weight.*\(3, 128\) there, \(100000, 128\) by",
    ),
    "head": ({"head": {"name": "lineal"}}, r"bbframe\.json: head: name='lineal'.*did you mean 'linear'"),
    "head's option": ({"head__width": 3}, r"bbframe\.json: head: unknown option 'width'"),
    "code": ({"head": {"_target_": "os.system", "name": "linear"}}, "names no code"),
    "code as name": ({"task": {"name": "os:system"}}, "names no code"),
    "task": ({"task": {"name": "detection"}}, "head=linear is for task=classification"),
    "channels": ({"preprocessing__mean": [0.5]}, r"preprocessing: mean=\[0.5\] .* must have 3 values"),
    "size": ({"preprocessing__size": [0, 32]}, r"bbframe\.json: size=\[0, 32\]"),
    "box": ({"preprocessing__min_size": -1, "preprocessing__max_size": 9}, "min_size=-1 must be"),
    "pixels": ({"decoding__max_pixels": 10**18}, "max_pixels=1000000000000000000 must be"),
    "fast": ({"fast": "yes"}, "fast='yes' must be true or false"),
    "metrics": ({"training__test": {"accuracy": "good"}}, "test.accuracy='good' must be a number"),
}


@pytest.mark.parametrize(("values", "text"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_description_is_refused_in_one_line(folder, values, text):
    changed(folder, **values)
    with pytest.raises(ValueError, match=text) as error:
        bbframe.load(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def spoil(folder, file, how):
    tensors = load_file(folder / file)
    how(tensors)
    save_file(tensors, folder / file, {"format": "pt"})


TENSORS = {
    "missing": (lambda t: t.pop("head.fc.bias"), r"head\.fc\.bias' \(missing there"),
    "surplus": (lambda t: t.update({"head.x": torch.ones(1)}), r"head\.x' \(\(1,\) there, none by"),
    "surplus elsewhere": (lambda t: t.update({"y": torch.ones(1)}), "'y'"),
    "the backbone's": (lambda t: t.update({"backbone.stem.x": torch.ones(1)}), r"backbone\.stem\.x"),
    "shape": (lambda t: t.update({"head.fc.bias": torch.ones(4)}), r"\(\(4,\) there, \(3,\) by"),
    "nan": (lambda t: t["head.fc.bias"].fill_(torch.nan), r"head\.fc\.bias holds numbers that are not finite"),
    "type": (lambda t: t.update({"head.fc.bias": torch.ones(3, dtype=torch.long)}), r"torch\.int64"),
}


@pytest.mark.parametrize(("how", "text"), TENSORS.values(), ids=TENSORS.keys())
def test_wrong_tensors_of_the_head_are_refused(folder, how, text):
    spoil(folder, "head.safetensors", how)
    with pytest.raises(ValueError, match=text) as error:
        bbframe.load(folder)
    assert "\n" not in str(error.value)
    assert "head.safetensors" in str(error.value)


@pytest.mark.parametrize("file", ["head.safetensors", "calibration.safetensors", "model.safetensors", "config.json"])
def test_a_missing_or_damaged_file_is_named(folder, file):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=re.escape(file)):
        bbframe.load(folder)
    (folder / file).unlink()
    with pytest.raises(ValueError, match=re.escape(file)):
        bbframe.load(folder)


def test_a_calibration_of_another_head_is_refused(folder):
    spoil(folder, "head.safetensors", lambda tensors: tensors["head.fc.bias"].add_(1))
    with pytest.raises(ValueError, match="belongs to another head"):
        bbframe.load(folder)


def test_weights_that_the_backbone_lacks_are_not_made_up(folder):
    spoil(folder, "model.safetensors", lambda tensors: tensors.pop(sorted(tensors)[0]))
    with pytest.raises(ValueError, match=r"^\S.*(missing|lack|do not fit)"):
        bbframe.load(folder)


@pytest.mark.parametrize("name", ["hf-hub:user/model", "local-dir:/etc", "user/model", "../x"])
def test_a_strangers_config_opens_no_other_place(tmp_path, name):
    under("linear", "timm").save_pretrained(tmp_path)
    changed(tmp_path, "config.json", backbone=name)
    with pytest.raises(ValueError, match="must be a plain name of timm"):
        bbframe.load(tmp_path)


def test_a_backbone_too_large_for_the_memory_is_not_built(folder):
    changed(folder, "config.json", hidden_sizes=[32768] * 3, depths=[1, 1, 99])
    with pytest.raises(ValueError, match=r"exceed the .* GiB of memory here"):
        bbframe.load(folder)


def test_a_plugin_that_is_not_loaded_is_named(folder):
    changed(folder, head={"name": "max_pool2"}, plugins=[{"module": "anna.parts", "version": None, "sha256": None}])
    with pytest.raises(ValueError, match=r"'max_pool2'.*its own parts come from 'anna\.parts': import that first"):
        bbframe.load(folder)


@dataclass(frozen=True, kw_only=True)
class WidePoolOptions(ClassifierOptions):
    name: str = "wide_pool"
    hidden: int = 5


def test_a_head_of_ones_own_is_recorded_with_its_plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_plugins", {})

    @registry.register("head", "wide_pool", WidePoolOptions)
    def wide_pool(options, channels, strides, num_classes):
        head = LinearHead(ClassifierOptions(), channels, strides, num_classes)
        head.fc = torch.nn.Sequential(
            torch.nn.Linear(channels[-1], options.hidden), torch.nn.Linear(options.hidden, num_classes)
        )
        return head

    plain = under("linear", "tiny_convnextv2")
    options = plain.task.options
    task = registry.make(
        "task", options, plain.backbone, plain.class_names, head=WidePoolOptions(), optim=AdamWOptions(), schedule=None
    )
    net = TrainedNetwork(task, plain.preprocessing)
    try:
        net.save_pretrained(tmp_path)
        (plugin,) = json.loads((tmp_path / "bbframe.json").read_text())["plugins"]
        assert plugin["module"] == __name__
        assert_equal_results(bbframe.load(tmp_path)(pictures()), net(pictures()))
    finally:
        del registry._parts["head", "wide_pool"]
    with pytest.raises(ValueError, match=rf"'wide_pool'.*its own parts come from '{__name__}': import that first"):
        bbframe.load(tmp_path)


def test_a_backbone_is_no_network(folder, tmp_path):
    net = bbframe.load(folder)
    net.backbone.save_pretrained(tmp_path / "alone")
    with pytest.raises(ValueError, match=r"is a backbone without a head; bbframe\.AutoBackbone\.from_pretrained"):
        bbframe.load(tmp_path / "alone")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        under("linear", "tiny_convnextv2").save_pretrained(tmp_path / "file")


def test_only_the_hub_has_revisions(folder):
    with pytest.raises(ValueError, match="revision='v2' is for the Hub"):
        bbframe.load(folder, revision="v2")


def test_facts_without_a_record_are_empty():
    assert under("linear", "tiny_convnextv2").facts == TrainingFacts()


def test_predict_and_embed_take_a_saved_folder(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(pictures()):
        picture.save(tmp_path / "photos" / f"{number}.png")
    assert COMMANDS["predict"][0](["run=saved", "images=photos"]) == 0
    lines = (folder / "predictions" / "predictions.csv").read_text().splitlines()
    best = bbframe.load(folder)(pictures()[0])
    assert lines[1].split(",")[:3] == ["0.png", best.label, f"{best.probability:.6f}"]
    assert COMMANDS["embed"][0](["run=saved", "images=photos", "out=features.npy"]) == 0
    assert "2 of 2 images" in capsys.readouterr().out


@pytest.mark.long
def test_a_run_with_plain_arithmetic_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "test=false", "task.unfamiliar=false"]
    assert train.main([*TINY, *short, "backbone.fast=false"]) == 0
    (checkpoint,) = tmp_path.rglob("best.ckpt")
    assert bbframe.load(checkpoint).fast is False


def test_a_strangers_facts_put_neither_markup_nor_paths_into_a_card(folder):
    content = json.loads((folder / "bbframe.json").read_text())
    content["training"].update(
        data="`\n# Hi <script>alert(1)</script>",
        backbone="net`](http://evil) <b>",
        overrides=["a=```\n# x", "data.root=photos of alice", "b=/home of/alice"],
        checkpoint="/a/b/w.ckpt",
        versions={"python": "<script>"},
    )
    (folder / "bbframe.json").write_text(json.dumps(content))
    card = model_card(bbframe.load(folder), "anna/x")
    assert not [word for word in ("<", "](", "alice", "w.ckpt") if word in card]
    assert card.count("```") == 4
    assert [line for line in card.splitlines() if line.startswith("# ")] == ["# x"]
    content["training"]["params"] = 10**400
    (folder / "bbframe.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"bbframe.json: training: params=1000"):
        bbframe.load(folder)
