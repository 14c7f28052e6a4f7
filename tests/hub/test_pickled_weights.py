"""Which weights a file holds that another tool wrote, what is passed over, and what a refusal says to type."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bbframe
from bbframe import AutoBackbone
from bbframe.hub import convert_weights, safe_pickle
from bbframe.hub.safe_pickle import is_stand_in, load_plain
from bbframe.run.checkpoint import load_checkpoint
from tests.hub.helpers import prefixed, refused, same
from tests.tiny import tiny


class Settings:
    """A class of somebody's script."""


def converted(text, folder):
    """What becomes of the command at the end of a refusal, pasted into bash in a folder."""
    command = text[text.index("python -m bbframe.hub.convert_weights") :]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(Path(bbframe.__file__).parents[1])
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(shlex.split(command)[4])


HELD = {
    "a module beside": lambda tensors, net: {"model": tensors, "args": torch.nn.Linear(2, 2)},
    "a whole module": lambda tensors, net: net,
    "a module below a name": lambda tensors, net: {"model": net, "epoch": 1},
    "arrays": lambda tensors, net: {name: value.numpy() for name, value in tensors.items()},
    "arrays below a name": lambda tensors, net: {"model": {name: value.numpy() for name, value in tensors.items()}},
    "an average": lambda tensors, net: {
        "state_dict": {name: torch.zeros_like(value) for name, value in tensors.items()},
        "state_dict_ema": tensors,
        "args": torch.nn.Linear(2, 2),
    },
}


@pytest.mark.long
@pytest.mark.parametrize("held", HELD)
def test_the_command_of_a_refusal_makes_a_file_with_the_same_weights(held, net, folder):
    path = folder / "w.pth"
    torch.save(HELD[held](load_file(folder / "model.safetensors"), net), path)
    text = refused(lambda: AutoBackbone.from_pretrained(path))
    assert re.search(r"which is code|objects of another library", text)
    file = converted(text, folder)
    assert file.parent == folder
    assert same(AutoBackbone.from_pretrained(file), net)


@pytest.mark.long
@pytest.mark.parametrize("name", ["w$(touch EVIL).pth", "it's.pth", 'a "b" c.pth', "-w.pth", "`touch EVIL`.pth"])
def test_the_name_of_a_file_is_no_part_of_a_command(name, net, folder):
    torch.save({"model": load_file(folder / "model.safetensors"), "args": torch.nn.Linear(2, 2)}, folder / name)
    file = converted(refused(lambda: AutoBackbone.from_pretrained(folder / name)), folder)
    assert same(AutoBackbone.from_pretrained(file), net)
    assert not (folder / "EVIL").exists()


def test_a_conversion_writes_over_nothing_and_says_whose_code_is_missing(folder, capsys):
    path = folder / "pytorch_model.bin"
    torch.save({"model": load_file(folder / "model.safetensors"), "args": Settings()}, path)
    text = refused(lambda: AutoBackbone.from_pretrained(path))
    assert f"{Settings.__module__}.Settings, which is code" in text
    assert text.endswith("model-weights.safetensors")  # there is a model.safetensors
    before = (folder / "model.safetensors").read_bytes()
    assert convert_weights.main([str(path), str(folder / "model.safetensors")]) == 1
    assert "is already there; give another name" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == before
    path.write_bytes(path.read_bytes().replace(b"Settings", b"Zettings"))
    assert convert_weights.main([str(path), str(folder / "new.safetensors")]) == 1
    assert not (folder / "new.safetensors").exists()


BESIDE = {
    "numpy": {"best": np.float64(0.93), "epoch": np.int64(3), "table": np.zeros((3, 3)), "rng": np.random.get_state()},
    "paths": {"folder": Path("/x"), "by": {Path("/y"): 1}},
    "dates": {"at": datetime.datetime(2020, 1, 1)},
    "arguments": {"args": argparse.Namespace(lr=1, out=Path("/x"))},
    "counts": {
        "seen": collections.defaultdict(int, a=1),
        "last": collections.deque([1, 2]),
        "n": collections.Counter("a"),
    },
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("kind", BESIDE)
def test_plain_data_beside_the_weights_is_passed_over(kind, zipped, net, folder):
    content = {"state_dict": load_file(folder / "model.safetensors"), **BESIDE[kind]}
    torch.save(content, folder / "w.pth", _use_new_zipfile_serialization=zipped)
    again = AutoBackbone.from_pretrained(folder / "w.pth")
    assert same(again, net)
    assert f"took 'state_dict', not {', '.join(BESIDE[kind])}" in str(again.load_report)


def test_an_object_of_a_library_is_not_made(folder):
    """Its stand-in is empty, and what the library's own would do does not happen."""
    content = io.BytesIO()
    torch.save({"a": np.ones(3), "b": Path("/x"), "c": argparse.Namespace(lr=1)}, content)
    data = load_plain(content.getvalue(), stand_ins=True)
    assert list(map(is_stand_in, data.values())) == [True] * 3
    assert list(map(list, data.values())) == [[]] * 3
    with pytest.raises(ValueError, match=r"it holds numpy.*, which is code"):
        load_plain(content.getvalue())


@pytest.mark.long
def test_weights_in_a_defaultdict_are_read(net, folder):
    torch.save(collections.defaultdict(int, load_file(folder / "model.safetensors")), folder / "w.pth")
    assert same(AutoBackbone.from_pretrained(folder / "w.pth"), net)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_program_is_named(folder):
    torch.jit.script(torch.nn.Linear(2, 2)).save(folder / "w.pt")
    text = refused(lambda: AutoBackbone.from_pretrained(folder / "w.pt"))
    assert "it is a TorchScript program" in text
    assert set(load_file(converted(text, folder))) == {"weight", "bias"}


# memory


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_file_makes_no_bytes_from_a_number(zipped, folder):
    content = {"state_dict": load_file(folder / "model.safetensors"), "x": Call(bytearray, 10**13)}
    torch.save(content, folder / "w.ckpt", _use_new_zipfile_serialization=zipped)
    assert "it calls builtins.bytearray, which may" in refused(lambda: AutoBackbone.from_pretrained(folder / "w.ckpt"))
    if zipped:
        assert "it calls builtins.bytearray" in refused(lambda: load_checkpoint(folder / "w.ckpt"))


def test_a_file_does_not_copy_its_objects_without_end(folder):
    many = tuple(range(2000))
    torch.save({"a": torch.zeros(1), "x": [Call(set, many) for _ in range(2000)]}, folder / "w.pth")
    text = refused(lambda: AutoBackbone.from_pretrained(folder / "w.pth"))
    assert "it copies the same objects again and again, into more than it holds" in text


def test_what_a_training_leaves_is_far_below_the_limit_of_copies(net, folder, monkeypatch):
    monkeypatch.setattr(safe_pickle, "_MOST_COPIES", 5)
    optimizer = torch.optim.AdamW(net.parameters())
    sum(p.sum() for p in net.parameters()).backward()
    optimizer.step()
    torch.save({"model": dict(net.named_parameters()), "optimizer": optimizer.state_dict()}, folder / "w.pth")
    assert load_plain(folder / "w.pth")["optimizer"]["param_groups"][0]["lr"] == 1e-3


def test_tensors_that_repeat_one_number_are_compared_before_they_are_joined(tmp_path, monkeypatch):
    net = tiny("dinov2")
    net.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    wide = {name for name in tensors if re.search("(query|key|value).weight|position", name)}
    for name in wide:
        tensors[name] = (
            torch.zeros(1).expand(1, 10**12, 16) if "position" in name else torch.zeros(1).expand(10**6, 10**6)
        )
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"0 missing, 0 unexpected, {len(wide) // 3 + 1} of another shape"):
        AutoBackbone.from_pretrained(tmp_path / "w.pth")


# which weights


KEYS = "net network weights params ema module encoder backbone student params_ema generator"


@pytest.mark.parametrize("key", KEYS.split())
def test_the_only_mapping_of_tensors_is_taken_and_named(key, net, folder):
    torch.save(
        {key: load_file(folder / "model.safetensors"), "epoch": 3, "optimizer": {"state": {}}}, folder / "w.pth"
    )
    again = AutoBackbone.from_pretrained(folder / "w.pth")
    assert same(again, net)
    assert f"w.pth: took '{key}', not epoch, optimizer" in str(again.load_report)


@pytest.mark.long
def test_of_several_mappings_by_unknown_names_the_command_takes_one(net, folder):
    tensors = load_file(folder / "model.safetensors")
    content = {"left": tensors, "right side": {name: torch.zeros_like(value) for name, value in tensors.items()}}
    torch.save(content, folder / "w.pth")
    text = refused(lambda: AutoBackbone.from_pretrained(folder / "w.pth"))
    assert "holds weights under 'left', 'right side'; choose: python -m" in text
    first, second = text.partition("choose: ")[2].split(" or ")
    assert same(AutoBackbone.from_pretrained(converted(first, folder)), net)
    other = AutoBackbone.from_pretrained(converted(second, folder))
    assert not any(p.any() for p in other.parameters())


PREFIXES = [("teacher.", "student."), ("teacher.backbone.", "student.backbone."), ("model_ema.", "model.")]
PREFIXES += [("module.encoder_q.", "module.encoder_k."), ("ema_model.", "online_model."), ("base_encoder.", "m.")]


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(("taken", "left"), PREFIXES)
def test_of_two_copies_the_average_is_taken_and_both_are_named(taken, left, suffix, net, folder):
    tensors = load_file(folder / "model.safetensors")
    zeros = {name: torch.zeros_like(value) for name, value in tensors.items()}
    path = folder / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)({**prefixed(zeros, left), **prefixed(tensors, taken)}, path)
    again = AutoBackbone.from_pretrained(path)
    assert same(again, net)
    assert f"the network's names follow {taken!r}, not {left!r}" in str(again.load_report)


@pytest.mark.long
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_of_two_equal_copies_the_command_takes_one(suffix, net, folder):
    tensors = load_file(folder / "model.safetensors")
    zeros = {name: torch.zeros_like(value) for name, value in tensors.items()}
    path = folder / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)({**prefixed(zeros, "a."), **prefixed(tensors, "b.")}, path)
    text = refused(lambda: AutoBackbone.from_pretrained(path))
    assert "holds the network several times, its names follow 'a.', 'b.'; choose: " in text
    assert same(AutoBackbone.from_pretrained(converted(text.split(" or ")[1], folder)), net)


def test_a_head_by_another_name_is_left_out_and_said(net, folder):
    path = folder / "model.safetensors"
    save_file({**load_file(path), "fc.weight": torch.zeros(9, 4), "fc.bias": torch.zeros(9)}, path)
    again = AutoBackbone.from_pretrained(folder)
    assert same(again, net)
    assert again.load_report.ignored == ["fc.bias", "fc.weight"]
    assert "left out fc.bias, fc.weight, taken for a head" in str(again.load_report)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value, folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[4]
    save_file({**tensors, name: tensors[name].float().index_fill_(0, torch.tensor([0]), value)}, path)
    text = refused(lambda: AutoBackbone.from_pretrained(folder))
    assert (
        f"1 of {len(tensors)} tensors hold values that are not finite (nan or infinite), the first is {name}" in text
    )


def test_sparse_weights_are_made_dense_and_said(net, folder):
    tensors = load_file(folder / "model.safetensors")
    torch.save({n: v.to_sparse() if v.ndim == 4 else v for n, v in tensors.items()}, folder / "w.pth")
    again = AutoBackbone.from_pretrained(folder / "w.pth")
    assert same(again, net)
    assert again.load_report.adapted["stem.conv.weight"] == "a sparse tensor made dense"


# where they lie


def test_a_suffix_may_be_in_capitals(net, folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "w.PTH")
    assert same(AutoBackbone.from_pretrained(folder / "w.PTH"), net)


def test_the_only_weights_of_a_folder_are_taken_and_several_are_named(net, folder):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    again = AutoBackbone.from_pretrained(folder)
    assert same(again, net)
    assert "weights.safetensors: taken as the only weights in the folder" in str(again.load_report)
    torch.save({}, folder / "optimizer.pt")
    text = refused(lambda: AutoBackbone.from_pretrained(folder))
    assert text.endswith(f"give one of its files: {folder / 'optimizer.pt'}, {folder / 'weights.safetensors'}")


def test_the_folder_below_that_has_a_config_is_named(folder):
    text = refused(lambda: AutoBackbone.from_pretrained(folder.parent))
    assert text.endswith(f"no config.json there; {folder} has one: give that folder")
