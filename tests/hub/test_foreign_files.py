"""Weights as training tools write them: wrapped, prefixed, beside other things; and what a stranger may put in one."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from hashlib import sha256

import pytest
import torch
from safetensors.torch import load_file, save, save_file

import bbframe
from bbframe import AutoBackbone
from bbframe.hub import checkpoint_files
from tests.hub.helpers import prefixed, refused, same
from tests.tiny import shaken, tiny

WRAPPED = {
    "model": lambda t: {"model": t},
    "state_dict": lambda t: {"state_dict": t, "epoch": 3, "arch": "resnet"},
    "ema": lambda t: {"state_dict": {k: torch.zeros_like(v) for k, v in t.items()}, "state_dict_ema": t},
    "model_ema": lambda t: {"model": {k: torch.zeros_like(v) for k, v in t.items()}, "model_ema": t, "optimizer": {}},
    "nested": lambda t: {"state_dict": {"model": t}},
    "parallel": lambda t: prefixed(t, "module."),
    "compiled": lambda t: {"state_dict": prefixed(t, "_orig_mod.")},
    "both": lambda t: {"model": prefixed(t, "module._orig_mod.")},
    "detector": lambda t: {
        "state_dict": {**prefixed(t, "backbone."), "neck.conv.weight": torch.zeros(3), "head.bias": torch.zeros(3)}
    },
    "lightning": lambda t: {
        "state_dict": {**prefixed(t, "model.backbone."), "model.fc.weight": torch.zeros(3)},
        "pytorch-lightning_version": "2.5",
        "loops": {"a": {}},
    },
    "teacher": lambda t: {"student": {}, "teacher": {**prefixed(t, "backbone."), "head.mlp.0.weight": torch.zeros(3)}},
    "beside": lambda t: {**t, "epoch": 3},
    "parameters": lambda t: {"model": {k: torch.nn.Parameter(v) if v.ndim else v for k, v in t.items()}},
    "classifier": lambda t: {"model": {**prefixed(t, "module.resnet."), "module.classifier.1.weight": torch.zeros(3)}},
}


FORMS = [(form, "pth") for form in WRAPPED]
FORMS += [(form, suffix) for form in ("model", "detector") for suffix in ("pt", "bin", "ckpt", "pth.tar")]


@pytest.mark.parametrize(("form", "suffix"), FORMS)
def test_what_training_tools_write_is_read_and_it_is_said_what_was_taken(form, suffix, net, folder):
    tensors = load_file(folder / "model.safetensors")
    path = folder / f"weights.{suffix}"
    torch.save(WRAPPED[form](tensors), path)
    again = AutoBackbone.from_pretrained(path)
    assert same(again, net)
    assert again.load_report.notes
    if form in ("ema", "model_ema"):
        assert re.search(r"took '(state_dict_ema|model_ema)', not (state_dict|model)", str(again.load_report))
    if form == "detector":
        assert {"neck.conv.weight", "head.bias"} <= set(again.load_report.ignored)
        assert "follow 'backbone.'" in str(again.load_report)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "net.", "model.encoder.", "module.backbone.body."])
def test_prefixes_are_found_in_safetensors_too(prefix, net, folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({**prefixed(tensors, prefix), "head.weight": torch.zeros(2)}, folder / "model.safetensors")
    again = AutoBackbone.from_pretrained(folder)
    assert same(again, net)
    assert again.load_report.ignored == ["head.weight"]


def test_a_prefix_hides_nothing_that_is_missing(net, folder):
    tensors = load_file(folder / "model.safetensors")
    gone = sorted(tensors)[3]
    del tensors[gone]
    save_file(prefixed(tensors, "module."), folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"1 missing, 0 unexpected.*\n  missing: {re.escape(gone)}"):
        AutoBackbone.from_pretrained(folder)


def own_checkpoint(net, path, **changes):
    """What a run of ours leaves, as far as a backbone needs it."""
    record = {
        "backbone": net.config.to_dict(),
        "preprocessing": {"mean": [0.5] * 3, "std": [0.25] * 3, "size": [64, 64]},
        "inputs": {"mean": [0.5] * 3, "std": [0.25] * 3, "size": [32, 48]},
    }
    state = {**prefixed(net.state_dict(), "backbone."), "head.weight": torch.zeros(4), "head.bias": torch.zeros(2)}
    torch.save({"state_dict": state, "bbframe": {**record, **changes}, "epoch": 1}, path)


@pytest.mark.parametrize("name", ["resnet", "dinov2", "swin", "vitdet"])
def test_a_runs_own_checkpoint_is_a_backbones_checkpoint(name, tmp_path):
    net = shaken(tiny(name))
    own_checkpoint(net, tmp_path / "best.ckpt")
    for again in (
        AutoBackbone.from_pretrained(tmp_path / "best.ckpt"),
        bbframe.make_backbone(
            {"model_type": name, "pretrained": True, "checkpoint": str(tmp_path / "best.ckpt")}
            | {"out_features": net.out_features}
        ),
    ):
        assert same(again, net)
        assert (again.preprocessing.mean, again.preprocessing.size) == ((0.5,) * 3, (32, 48))
        assert again.load_report.preprocessing == "the run's record"
        assert again.load_report.ignored == ["head.weight", "head.bias"]


def test_a_runs_checkpoint_of_timms_network_is_read(tmp_path):
    pytest.importorskip("timm")
    net = shaken(AutoBackbone.from_config({"model_type": "timm_backbone", "backbone": "test_resnet"}))
    own_checkpoint(net, tmp_path / "best.ckpt")
    assert same(AutoBackbone.from_pretrained(tmp_path / "best.ckpt"), net)


def test_the_authors_names_of_mae_go_into_vitdet(tmp_path):
    net = shaken(tiny("vitdet", use_absolute_position_embeddings=True, use_relative_position_embeddings=False))
    names = {
        "stem.positions": "pos_embed",
        "stem.patch": "patch_embed.proj",
        "norm1": "norm1",
        "norm2": "norm2",
    }
    theirs = {}
    for name, value in net.state_dict().items():
        if ".residual." in name:
            continue
        new = re.sub(r"^stages\.(\d+)\.", r"blocks.\1.", name)
        for ours, original in names.items():
            new = new.replace(ours, original)
        theirs[new] = value
    rest = {"cls_token": torch.zeros(1, 1, 3), "norm.weight": torch.zeros(3), "decoder_embed.weight": torch.zeros(3)}
    torch.save({"model": {**theirs, **rest}}, tmp_path / "mae_pretrain_vit_tiny.pth")
    config = net.config.to_dict()
    again = AutoBackbone.from_pretrained(tmp_path / "mae_pretrain_vit_tiny.pth", config=config)
    loaded = set(again.load_report.loaded)
    assert all(torch.equal(again.state_dict()[name], net.state_dict()[name]) for name in loaded)
    assert loaded | set(again.load_report.fresh) == set(net.state_dict())
    assert all(".residual." in name for name in again.load_report.fresh)
    file = {key: value for key, value in config.items() if key in type(net).config_class.option_names()}
    file |= {"model_type": "vitdet", "pretrained": True, "checkpoint": str(tmp_path / "mae_pretrain_vit_tiny.pth")}
    assert set(bbframe.make_backbone(file).load_report.loaded) == loaded


def test_numbers_that_are_no_weights_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    key = next(key for key, value in tensors.items() if value.ndim == 4)
    save_file({**tensors, key: torch.zeros(tensors[key].shape, dtype=torch.int8)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"holds torch\.int8 instead of torch\.float32"):
        AutoBackbone.from_pretrained(folder)


# the hash of what is loaded


def test_the_pin_holds_for_the_very_bytes_that_are_loaded(net, folder, monkeypatch):
    """A link that is turned over at every opening: either the pinned file is loaded or none."""
    other = {key: torch.zeros_like(value) for key, value in load_file(folder / "model.safetensors").items()}
    good, bad, link = folder / "good", folder / "bad", folder / "model.safetensors"
    link.rename(good)
    save_file(other, bad)
    pin, opened = sha256(good.read_bytes()).hexdigest(), []
    real_open = io.open

    def turning(file, *args, **kwargs):
        if str(file) == str(link):
            opened.append(file)
        handle = real_open(file, *args, **kwargs)
        if str(file) == str(link):
            link.unlink()
            link.symlink_to(bad if len(opened) % 2 else good)
        return handle

    for start in (good, bad) * 3:
        link.unlink(missing_ok=True)
        link.symlink_to(start)
        opened.clear()
        with monkeypatch.context() as patch:
            patch.setattr(io, "open", turning)
            try:
                again = AutoBackbone.from_pretrained(folder, sha256=pin)
            except ValueError as error:
                assert "as sha256 says" in str(error)  # noqa: PT017
                assert start == bad
                continue
        assert same(again, net)
        assert again.load_report.sha256 == {"model.safetensors": pin}


def test_every_file_of_weights_is_opened_once(folder, monkeypatch):
    opened = []
    real = checkpoint_files.Path.read_bytes
    monkeypatch.setattr(checkpoint_files.Path, "read_bytes", lambda path: (opened.append(path.name), real(path))[1])
    AutoBackbone.from_pretrained(folder, sha256=sha256((folder / "model.safetensors").read_bytes()).hexdigest())
    assert opened.count("model.safetensors") == 2  # one of them is this test's


# hostile files


def header(entries, data=b""):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HOSTILE = {
    "huge header": struct.pack("<Q", 2**62) + b"{}",
    "header past the end": struct.pack("<Q", 100) + b"{}",
    "no json": header(b"\xff\xfe"),
    "offsets past the end": header({"a": {**F32, "data_offsets": [0, 4 << 40]}}, b"1234"),
    "a negative size": header({"a": {**F32, "shape": [-1]}}, b"1234"),
    "a size that overflows": header({"a": {**F32, "shape": [2**32, 2**32]}}, b"1234"),
    "an unknown dtype": header({"a": {**F32, "dtype": "F9"}}, b"1234"),
    "the same name twice": header(b'{"a":%s,"a":%s}' % ((json.dumps(F32).encode(),) * 2), b"1234"),
    "nested": header(b"[" * 100_000),
    "a hole": header({"a": {**F32, "data_offsets": [4, 8]}}, b"12345678"),
    "trailing bytes": header({"a": F32}, b"12345678"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_safetensors_are_one_line(content, folder):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"^\S") as error:
        AutoBackbone.from_pretrained(folder)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("name", ["\x1b[31m", "a\nb", "x" * 5000, "../../etc/passwd", "__class__.__init__", ""])
def test_hostile_names_of_tensors_are_listed_harmlessly(name, folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").write_bytes(save({**tensors, name: torch.zeros(1)}))
    with pytest.raises(ValueError, match="0 missing, 1 unexpected") as error:
        AutoBackbone.from_pretrained(folder)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value).splitlines()) == 2
    assert len(str(error.value)) < 1000


def test_two_files_with_the_same_tensor_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name in names:
        save_file(tensors, folder / name)
    index = {"weight_map": {key: names[i % 2] for i, key in enumerate(tensors)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "and a file before it both hold" in refused(lambda: AutoBackbone.from_pretrained(folder))


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"a": "../x.safetensors"}}, "shards must be plain file names"),
        ({"weight_map": {"a": "run.sh"}}, "shards must be plain file names"),
        ({"weight_map": {"a": ["model.safetensors"]}}, "shards must be plain file names"),
        ({"weight_map": {str(i): f"m{i}.safetensors" for i in range(5000)}}, "5000 shards, where 1024 are the most"),
        ({"weight_map": []}, "has no weight_map"),
        ({}, "has no weight_map"),
        ([], "must hold a JSON object"),
    ],
)
def test_hostile_indexes_are_one_line(index, said, folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert said in refused(lambda: AutoBackbone.from_pretrained(folder))


def test_a_file_of_json_that_is_too_large_is_not_parsed(folder, monkeypatch):
    monkeypatch.setattr("bbframe.hub.client._LARGEST_JSON", 100)
    assert "bytes of JSON, where 100 are the most" in refused(lambda: AutoBackbone.from_pretrained(folder))


def test_a_mark_of_the_byte_order_is_no_fault(folder, net):
    path = folder / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert same(AutoBackbone.from_pretrained(folder), net)


def test_an_archive_that_expands_is_refused(folder):
    with zipfile.ZipFile(folder / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    text = refused(lambda: AutoBackbone.from_pretrained(folder / "bomb.pth"))
    assert "it expands to more than it holds" in text


def test_a_network_that_does_not_fit_in_memory_is_one_line(folder):
    data = json.loads((folder / "config.json").read_text())
    data["hidden_sizes"] = [size << 40 for size in data["hidden_sizes"]]
    (folder / "config.json").write_text(json.dumps(data))
    assert "hidden_sizes" in refused(lambda: AutoBackbone.from_pretrained(folder))


# a folder with a name of timm's


@pytest.mark.long
@pytest.mark.parametrize("name", ["timm/mine", "timm/resnet18", "timm/test_resnet", "hf-hub:mine"])
def test_a_local_folder_comes_before_a_name_of_timms(name, net, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    net.save_pretrained(name)
    assert same(AutoBackbone.from_pretrained(name), net)
    theirs = shaken(AutoBackbone.from_config({"model_type": "timm_backbone", "backbone": "test_resnet"}))
    theirs.save_pretrained(name)
    assert same(AutoBackbone.from_pretrained(name), theirs)
    for file in (tmp_path / name).iterdir():
        file.unlink()
    whole = timm.create_model("test_resnet")
    save_file(whole.state_dict(), tmp_path / name / "model.safetensors")
    (tmp_path / name / "config.json").write_text(json.dumps({"architecture": "test_resnet"}))
    again = AutoBackbone.from_pretrained(name)
    assert again.load_report.source == name
    theirs_by_name = whole.state_dict()
    for key, value in again.state_dict().items():
        assert torch.equal(value, theirs_by_name[again._names.theirs(key)[0]])
    if name.startswith("timm/"):
        file = {"model_type": "timm_backbone", "backbone": name, "pretrained": True}
        assert bbframe.make_backbone(file).load_report.source == name
