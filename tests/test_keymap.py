"""The table of names, both ways."""

from __future__ import annotations

import pytest

from bbframe.keymap import KeyMap

KEYS = KeyMap(
    """
    embed.cls                       stem.cls
    layer.{}.attn.(q|k|v)           stages.{}.qkv
    layer.{}.blocks.{}.dense        stages.{}.blocks.{}.fc
    norms.stage{}                   norms.stage{}
    layer.{}.down                   stages.{+1}.down
    """,
    prefixes=["net."],
    saved_prefix="",
    ignored=["head.*"],
    fresh=["norms.*"],
)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("stem.cls", ["embed.cls"]),
        ("stages.10.qkv.weight", ["layer.10.attn.q.weight", "layer.10.attn.k.weight", "layer.10.attn.v.weight"]),
        ("stages.1.blocks.23.fc.bias", ["layer.1.blocks.23.dense.bias"]),
        ("norms.stage4.weight", ["norms.stage4.weight"]),
        ("stages.10.down.weight", ["layer.9.down.weight"]),
    ],
)
def test_names_go_both_ways_with_integers_and_leaves(ours, theirs):
    assert KEYS.theirs(ours) == theirs
    assert [KEYS.ours(name) for name in theirs] == [ours] * len(theirs)


def test_nothing_lies_before_the_first():
    assert KEYS.ours("layer.0.down") == "stages.1.down"
    with pytest.raises(ValueError, match="matches 0 rows"):
        KEYS.theirs("stages.0.down")


@pytest.mark.parametrize("name", ["embed.clsx", "layer.x.attn.q.weight", "layer.1.attn.o.weight", "embed.cls.a.b", ""])
def test_what_no_row_knows_has_no_name(name):
    assert KEYS.ours(name) is None


def test_one_of_ours_must_match_exactly_one_row():
    with pytest.raises(ValueError, match=r"'stem\.other' matches 0 rows of the key table; exactly one must"):
        KEYS.theirs("stem.other")
    twice = KeyMap("a  x\nb  x")
    with pytest.raises(ValueError, match=r"'x\.weight' matches 2 rows"):
        twice.theirs("x.weight")
    with pytest.raises(ValueError, match=r"'a' matches several rows of the key table: \['x', 'y'\]"):
        KeyMap("a  x\na  y").ours("a")


def test_prefixes_are_stripped_only_when_they_are_there():
    assert KEYS.strip(["net.embed.cls", "head.weight"]) == {"embed.cls": "net.embed.cls", "head.weight": "head.weight"}
    assert KEYS.strip(["embed.cls"]) == {"embed.cls": "embed.cls"}
    assert KeyMap("a  x", saved_prefix="deep.er.").strip(["deep.er.a"]) == {"a": "deep.er.a"}


def test_prefixes_may_stand_one_behind_the_other():
    deeper = KEYS.inside("model.", "level.encoder.", ignored=["level.decoder.*"])
    names = ["model.level.encoder.net.embed.cls", "level.encoder.norms.stage1", "model.level.decoder.x", "head.x"]
    assert list(deeper.strip(names)) == ["embed.cls", "norms.stage1", "level.decoder.x", "head.x"]
    assert [name for name in deeper.strip(names) if deeper.ignores(name)] == ["level.decoder.x", "head.x"]
    assert deeper.theirs("stem.cls") == ["embed.cls"]
    assert not KEYS.ignores("level.decoder.x")
    assert list(KEYS.strip(names)) == names


def test_two_names_of_one_tensor_are_refused():
    with pytest.raises(ValueError, match=r"'net\.embed\.cls' and 'embed\.cls' stand for the same tensor"):
        KEYS.strip(["net.embed.cls", "embed.cls"])


def test_some_names_are_saved_without_the_prefix():
    keys = KeyMap("a  x\nnorms.{}  norms.{}", saved_prefix="model.", unprefixed=["norms.*"])
    assert [keys.saved(name) for name in ("a.weight", "norms.0.weight")] == ["model.a.weight", "norms.0.weight"]
    assert list(keys.strip(["model.a.weight", "norms.0.weight"])) == ["a.weight", "norms.0.weight"]


def test_ignored_and_fresh_names_are_patterns():
    assert KEYS.ignores("head.weight")
    assert not KEYS.ignores("embed.head")
    assert KEYS.may_lack("norms.stage1.weight")
    assert KEYS.may_lack("layer.0.bn.num_batches_tracked")
    assert not KEYS.may_lack("embed.cls")
