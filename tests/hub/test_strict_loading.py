"""Weights into a backbone: from every kind of place, strictly, with a report; and what each refusal says."""

from __future__ import annotations

import json
import pickle
import re
import stat
from hashlib import sha256

import pytest
import torch
from safetensors.torch import load_file, save_file

import bbframe
from bbframe import AutoBackbone
from bbframe.hub import saving
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.hub.strict_loading import LoadReport, adapt_input_channels, fill, load_weights
from tests.own import OwnBackbone, OwnConfig
from tests.tiny import GOLDEN, cases, distance, example, free, golden_config, names, tiny

every_name = pytest.mark.parametrize("name", names())


@pytest.fixture
def saved(tmp_path):
    """A function that saves a small backbone: saved("resnet") -> its folder."""

    def save(name="resnet", **fields):
        tiny(name, **fields).save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


def same_maps(one, two):
    x = example(one)
    with torch.no_grad():
        maps = one.eval()(x).feature_maps, two.eval()(x).feature_maps
    return all(torch.equal(a, b) for a, b in zip(*maps, strict=True))


def edit(folder, change):
    """Change the weights of a saved folder by a function from tensors to tensors."""
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors")


# the report


@every_name
def test_a_pruned_backbone_reports_what_it_did_not_build(name, saved):
    folder = saved(name)
    whole = tiny(name)
    net = AutoBackbone.from_pretrained(folder, out_indices=[0, 1])
    kept = {part for key in net.state_dict() for part in net.keys.theirs(key)}
    every = {part for key in whole.state_dict() for part in net.keys.theirs(key)}
    assert set(net.load_report.not_built) == every - kept
    assert net.load_report.not_built
    assert set(net.load_report.loaded) == set(net.state_dict())
    assert f"{len(net.load_report.not_built)} not built" in str(net.load_report)
    assert net.out_indices == [0, 1]


@every_name
def test_another_number_of_input_channels_adapts_the_stem_and_says_so(name, saved):
    folder = saved(name)
    net, grey = AutoBackbone.from_pretrained(folder), AutoBackbone.from_pretrained(folder, num_channels=1)
    assert list(grey.load_report.adapted.values()) == ["3 input channels to 1"]
    (stem,) = grey.load_report.adapted
    assert f"adapted {stem}: 3 input channels to 1" in str(grey.load_report)
    x = example(grey)
    with torch.no_grad():
        for a, b in zip(grey(x).feature_maps, net(x.expand(-1, 3, -1, -1)).feature_maps, strict=True):
            assert distance(a, b) < 1e-4 or name == "bit"  # it standardises its filters, so that their scale changes
        five = AutoBackbone.from_pretrained(folder, num_channels=5)
        assert list(five.load_report.adapted.values()) == ["3 input channels to 5"]
        assert len(five(example(five)).feature_maps) == len(five.channels)
    given, adapted = net.state_dict()[stem], five.state_dict()[stem]
    torch.testing.assert_close(adapted, given[:, [0, 1, 2, 0, 1]] * 3 / 5)


def test_channels_repeat_in_turn_and_keep_the_response():
    weight = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(adapt_input_channels(weight, 6).sum(1), weight.sum(1))
    torch.testing.assert_close(adapt_input_channels(weight[:, :1], 3).sum(1), weight[:, 0])
    torch.testing.assert_close(adapt_input_channels(weight, 2), weight[:, :2] * 1.5)


def test_the_report_holds_the_hash_of_every_file_and_the_unknown_keys(saved):
    folder = saved()
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**data, "some_new_field": 3, "id2label": {"0": "cat"}}))
    report = AutoBackbone.from_pretrained(folder).load_report
    assert report.sha256 == {
        "model.safetensors": sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    }
    assert report.unknown_config == ["some_new_field"]
    assert "config.json keys without a meaning here: some_new_field" in str(report)
    assert report.revision is None


# names on disk


@every_name
def test_names_with_a_classifiers_prefix_or_without_any_are_read(name, saved):
    folder, net = saved(name), tiny(name)
    tensors = load_file(folder / "model.safetensors")
    bare = {short: tensors[full] for short, full in net.keys.strip(tensors).items()}
    heads = [head for head in ("classifier.weight", "classifier.1.weight") if net.keys.ignores(head)]
    for prefix in ("", *net.keys.prefixes):
        needed = {prefix + key: value for key, value in bare.items() if not net.keys.may_lack(key)}
        save_file({**needed, **{head: torch.zeros(5, 7) for head in heads}}, folder / "model.safetensors")
        again = AutoBackbone.from_pretrained(folder)
        assert same_maps(again, net)
        assert again.load_report.ignored == sorted(heads)
        assert set(again.load_report.fresh) == {key for key in net.state_dict() if _may_lack(net, key)}


@every_name
def test_indices_that_older_checkpoints_hold_are_ignored(name, saved):
    """Swin-like networks and BEiT once saved which bias belongs to which pair of places."""
    folder, net = saved(name), tiny(name)
    tensors = load_file(folder / "model.safetensors")
    old = [
        key.removesuffix(part) + leaf
        for key in tensors
        for part, leaves in _PERSISTED.items()
        if key.endswith(part)
        for leaf in leaves
    ]
    assert bool(old) == (name in ("beit", "maskformer_swin", "swin", "swinv2"))
    indices = {key: torch.zeros(9, 9, dtype=torch.long) for key in old}
    save_file({**tensors, **indices}, folder / "model.safetensors")
    again = AutoBackbone.from_pretrained(folder)
    assert same_maps(again, net)
    assert set(again.load_report.ignored) == set(net.keys.strip(old))


_PERSISTED = {  # beside which tensor of a block stood what
    "relative_position_bias_table": ["relative_position_index"],
    "continuous_position_bias_mlp.0.weight": ["relative_position_index", "relative_coords_table"],
}


@every_name
def test_the_historic_names_of_weights_and_biases_are_read(name, saved):
    folder, net = saved(name), tiny(name)

    def age(tensors):
        new = {key: _aged(key) if value.ndim == 1 else key for key, value in tensors.items()}
        assert list(new) != list(new.values())
        return {new[key]: value for key, value in tensors.items()}

    edit(folder, age)
    again = AutoBackbone.from_pretrained(folder)
    assert same_maps(again, net)
    assert set(again.load_report.loaded) == set(net.state_dict())
    pruned = AutoBackbone.from_pretrained(folder, out_indices=[0])
    assert set(pruned.load_report.loaded) == set(pruned.state_dict())


def test_a_tensor_under_two_names_is_refused(saved):
    folder = saved()
    key = "embedder.embedder.normalization.weight"
    for twin in (_aged(key), f"resnet.{key}"):
        edit(folder, lambda tensors, twin=twin: {**tensors, twin: tensors[key].clone()})
        with pytest.raises(ValueError, match=f"^{re.escape(str(folder))}: .* stand for the same tensor") as error:
            AutoBackbone.from_pretrained(folder)
        assert repr(key) in str(error.value)
        assert repr(twin) in str(error.value)
        edit(folder, lambda tensors, twin=twin: {k: v for k, v in tensors.items() if k != twin})


class _Scaled(OwnBackbone):
    """A stem whose scale is really called gamma."""

    def __init__(self, config):
        super().__init__(config)
        self.stem.gamma = torch.nn.Parameter(torch.ones(1))


def test_a_gamma_of_the_architecture_keeps_its_name():
    net = _Scaled(OwnConfig())
    tensors = {
        "embed.weight": torch.zeros(4, 3, 1, 1),
        "embed.beta": torch.full((4,), 2.0),
        "layer.0.beta": torch.zeros(4),
    }
    tensors |= {"layer.0.weight": torch.zeros(4, 4, 2, 2), "embed.gamma": torch.full((1,), 3.0)}
    fill(net, net.keys, tensors, LoadReport("here"))
    assert (net.stem.gamma.item(), net.stem.bias[0].item()) == (3.0, 2.0)


# refusals


@every_name
def test_all_that_does_not_fit_is_listed_at_once_and_nothing_is_loaded(name, saved):
    folder, net = saved(name), tiny(name)
    on_disk = net.keys.strip(load_file(folder / "model.safetensors"))
    bare = {full: name for name, full in on_disk.items() if not net.keys.may_lack(name)}
    needed = sorted(bare)
    second, third = needed[1:3]

    def spoil(tensors):
        tensors["foreign.weight"] = torch.zeros(1)
        tensors[second] = torch.zeros(7, 7)
        del tensors[third]
        return {key: value + 1 for key, value in tensors.items()}

    edit(folder, spoil)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match="1 missing, 1 unexpected, 1 of another shape") as error:
        load_weights(net, [net.keys], Checkpoint(folder))
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{folder}: does not fit {net.config.model_type} in this configuration")
    assert f"  missing: {bare[third]}" in lines
    assert "  unexpected: foreign.weight" in lines
    assert any(line.startswith("  shape: ") and "[7, 7]" in line and " instead of " in line for line in lines)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("case", [c for c in cases() if not free(golden_config(c)) or c.endswith("plain")])
def test_the_checkpoint_of_another_architecture_is_one_line_that_names_both(case):
    name = case.partition("/")[0]
    other = next(n for n in names() if n != name)
    for make in (
        lambda: bbframe.auto.backbone_class(other).from_pretrained(GOLDEN / case),
        lambda: bbframe.make_backbone({"model_type": other, "pretrained": True, "checkpoint": str(GOLDEN / case)}),
    ):
        with pytest.raises(ValueError, match="a checkpoint of") as error:
            make()
        types = [bbframe.auto.backbone_class(n).config_class.model_type for n in (name, other)]
        assert str(error.value) == (
            f"{GOLDEN / case}: config.json: a checkpoint of {types[0]!r}, not of {types[1]!r}; "
            "choose the backbone that the checkpoint was made with"
        )


def test_a_config_of_another_class_is_refused(saved):
    given = _config_of("resnet")
    for config in (given, bbframe.auto.config_from_dict(given)):
        with pytest.raises(ValueError, match=r"^config: a checkpoint of 'resnet', not of 'dinov2'; choose"):
            bbframe.Dinov2Backbone.from_pretrained(saved(), config=config)


def test_weights_of_another_architecture_without_a_config_are_one_line(saved):
    file = saved("dinov2") / "model.safetensors"
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: not a checkpoint of resnet in this") as error:
        AutoBackbone.from_pretrained(file, config=_config_of("resnet"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"this is text\n", b"\x00" * 100, None], ids=["empty", "text", "zeros", "cut"]
)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_files_are_named(content, file, saved):
    folder = saved()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / file
    save_file(tensors, path) if file.endswith("safetensors") else torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:-500] if content is None else content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: not a whole ") as error:
        AutoBackbone.from_pretrained(folder)
    assert "fetch it again" in str(error.value)
    assert "\n" not in str(error.value)


class _Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(saved, tmp_path):
    folder, witness = saved(), tmp_path / "witness"
    (folder / "model.safetensors").unlink()
    torch.save({"stem.conv.weight": _Harm(witness)}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: not a whole file of tensors alone"):
        AutoBackbone.from_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": _Harm(witness)}))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: not a whole file of tensors alone"):
        AutoBackbone.from_pretrained(folder)
    assert not witness.exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}, {"state_dict": {"x": 1}}, {1: torch.zeros(1)}])
def test_a_bin_file_must_hold_names_and_tensors(content, saved):
    folder = saved()
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="must hold a plain mapping from names to tensors"):
        AutoBackbone.from_pretrained(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("\x00\x01", "not valid JSON"),
        ("[1]", "must hold a JSON object, not list"),
        ("{}", "config.json: has no model_type; choose from: "),
        ('{"model_type": "resnt"}', "no backbone 'resnt'; did you mean 'resnet'?"),
        ('{"model_type": ["resnet"]}', "no backbone "),
        (
            '{"model_type": "resnet", "depths": "many"}',
            "config.json: resnet: depths='many' must be a list of integers",
        ),
        ('{"model_type": "resnet", "out_indices": [9]}', "config.json: resnet: out_indices=[9]: no stage 9"),
    ],
)
def test_a_config_file_that_cannot_be_read_is_named(text, message, saved):
    folder = saved()
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        AutoBackbone.from_pretrained(folder)
    assert str(error.value).startswith(str(folder))


def test_a_selection_that_does_not_fit_is_not_blamed_on_the_file(saved):
    with pytest.raises(ValueError, match=r"^resnet: out_indices=\[9\]: no stage 9"):
        AutoBackbone.from_pretrained(saved(), out_indices=[9])
    with pytest.raises(ValueError, match=r"^resnet: unknown option 'depht'; did you mean 'depths'"):
        AutoBackbone.from_pretrained(saved(), depht=[1])


def test_a_preprocessor_file_that_cannot_be_read_is_named(saved):
    folder = saved()
    (folder / "preprocessor_config.json").write_text('{"size": {"width": 3}}')
    with pytest.raises(ValueError, match=f"^{re.escape(str(folder))}: preprocessor_config.json cannot be read"):
        AutoBackbone.from_pretrained(folder)


# places


def test_one_file_takes_its_config_from_beside_it_or_from_the_call(saved, tmp_path):
    net, file = tiny("resnet"), saved() / "model.safetensors"
    assert same_maps(AutoBackbone.from_pretrained(file), net)
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(file.read_bytes())
    given = AutoBackbone.from_pretrained(alone, config=net.config)
    assert same_maps(given, net)
    assert given.load_report.source == str(alone)
    assert AutoBackbone.from_pretrained(alone, config=net.config.to_dict(), out_indices=[1]).out_indices == [1]
    with pytest.raises(ValueError, match=r"alone\.safetensors: no config.json there; put it beside the weights, or"):
        AutoBackbone.from_pretrained(alone)


def test_the_callers_config_is_not_changed(saved):
    config = tiny("resnet").config
    AutoBackbone.from_pretrained(saved(), config=config, out_indices=[0])
    assert config.out_features == config.stage_names


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_bin_files_are_read_when_there_are_no_safetensors(zipped, saved):
    folder = saved()
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    (folder / "model.safetensors").unlink()
    net = AutoBackbone.from_pretrained(folder)
    assert same_maps(net, tiny("resnet"))
    assert list(net.load_report.sha256) == ["pytorch_model.bin"]


def test_safetensors_are_preferred(saved):
    folder = saved()
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
    assert list(AutoBackbone.from_pretrained(folder).load_report.sha256) == ["model.safetensors"]


def shard(folder, name_of=lambda i: f"model-{i:05}-of-00002.safetensors"):
    """Split the weights of a saved folder into two files and an index; returns the index's data."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = [dict(list(tensors.items())[i::2]) for i in range(2)]
    for i, part in enumerate(parts, start=1):
        save_file(part, folder / f"model-{i:05}-of-00002.safetensors")
    index = {"weight_map": {key: name_of(i) for i, part in enumerate(parts, start=1) for key in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_sharded_weights_are_put_together(saved):
    folder = saved()
    shard(folder)
    net = AutoBackbone.from_pretrained(folder)
    assert same_maps(net, tiny("resnet"))
    assert len(net.load_report.sha256) == 2


def test_a_missing_shard_is_named(saved):
    folder = saved()
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"index\.json: the shard model-00002-of-00002\.safetensors is missing"):
        AutoBackbone.from_pretrained(folder)


@pytest.mark.parametrize("evil", ["../../x", "/etc/passwd", "a\\b", "a/b.safetensors", "..", ".hidden", ""])
def test_shards_have_plain_names(evil, saved):
    folder = saved()
    shard(folder, lambda i: evil)
    with pytest.raises(ValueError, match=f"refers to {re.escape(repr(evil))}; shards must be plain file names"):
        AutoBackbone.from_pretrained(folder)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": 3}', '{"weight_map": {}}'])
def test_an_index_must_have_a_map(text, saved):
    folder = saved()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json: has no weight_map"):
        AutoBackbone.from_pretrained(folder)


def test_places_that_are_not_there_are_named(tmp_path, saved):
    folder = saved()
    with pytest.raises(ValueError, match="no such folder or file") as error:
        AutoBackbone.from_pretrained(tmp_path / "resnt")
    assert str(error.value) == (
        f"{tmp_path / 'resnt'}: no such folder or file, and no id on the Hub; did you mean {str(folder)!r}?"
    )
    for missing in (tmp_path / "no" / "where", "weights.safetensors"):
        with pytest.raises(ValueError, match=f"^{missing}: no such folder or file, and no id on the Hub; check the"):
            AutoBackbone.from_pretrained(missing)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=f"^{empty}: no config.json there"):
        AutoBackbone.from_pretrained(empty)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=f"^{folder}: holds no weights; looked for model.safetensors, "):
        AutoBackbone.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"config\.json: not a weights file; give a \.safetensors or \.bin file"):
        AutoBackbone.from_pretrained(folder / "config.json")
    with pytest.raises(ValueError, match=f"^{folder}: revision='v2' is for the Hub, this is local; leave it null"):
        AutoBackbone.from_pretrained(folder, revision="v2")


# saving


def test_saving_over_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=f"^{place}: cannot be written .*; choose another folder$"):
            tiny("resnet").save_pretrained(place)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    net, folder = tiny("resnet"), tmp_path / "net"
    net.save_pretrained(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"config.json", "preprocessor_config.json", "model.safetensors"}

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(ValueError, match="No space left on device"):
        net.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_saved_files_can_be_read_by_those_who_may_read_others(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x")
    tiny("resnet").save_pretrained(tmp_path / "net")
    for path in (tmp_path / "net").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_pruned_backbone_saves_what_it_built_and_reads_back(tmp_path):
    net = tiny("convnextv2", out_indices=[0, 2])
    net.save_pretrained(tmp_path)
    again = AutoBackbone.from_pretrained(tmp_path)
    assert same_maps(again, net)
    with pytest.raises(ValueError, match="missing"):
        AutoBackbone.from_pretrained(tmp_path, out_indices=[-1])


def test_unequal_parts_of_a_fused_tensor_are_listed(saved):
    folder = saved("dinov2")
    part = "encoder.layer.0.attention.attention.{}.bias"
    edit(folder, lambda tensors: {**tensors, part.format("key"): torch.zeros(2)})
    with pytest.raises(ValueError, match="0 missing, 0 unexpected, 1 of another shape") as error:
        AutoBackbone.from_pretrained(folder)
    width = load_file(folder / "model.safetensors")[part.format("query")].shape[0]
    names = ", ".join(map(part.format, ("query", "key", "value")))
    assert f"shape: {names}: [{width}], [2], [{width}] instead of equal ones" in str(error.value)


def _aged(key):
    return re.sub(r"\.bias$", ".beta", re.sub(r"\.weight$", ".gamma", key))


def _may_lack(net, key):
    return all(map(net.keys.may_lack, net.keys.theirs(key)))


def _config_of(name):
    return tiny(name).config.to_dict()
