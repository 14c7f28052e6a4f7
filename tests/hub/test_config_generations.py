"""Config files of the Hub, and those that transformers 4.20 to 5.24 save, as `generations/make.py` had each write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bbframe.auto import _class_for, backbone_class
from bbframe.hub.stated_config import stated_config
from tests.tiny import names

FILES = sorted(
    Path(__file__).with_name("generations").glob("*.json"), key=lambda p: [int(n) for n in p.stem.split(".")]
)
CONFIGS = {f"{file.stem} {key}": data for file in FILES for key, data in json.loads(file.read_text()).items()}
PUBLISHED = sorted(Path(__file__).with_name("published").glob("*.json"))  # <owner>--<name> on the Hub
CONFIGS |= {file.stem: json.loads(file.read_text()) for file in PUBLISHED}


def stated(name):
    """What a file states for the backbone that it describes, or that is inside the model that it describes."""
    data = CONFIGS[name]
    return stated_config(name, data, _class_for(name, data))


def test_there_are_files_of_three_generations():
    assert {file.stem.partition(".")[0] for file in FILES} == {"4", "5"}
    assert any(file.stem.startswith("4.2") for file in FILES)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_of_any_generation_is_read_whole(name):
    data, found = CONFIGS[name], stated(name)
    assert found.unknown == []
    config = found.config({})
    assert config.model_type == found.config_class.model_type
    inner = data if "backbone_config" not in data else data["backbone_config"] or {}
    chosen = inner.get("out_features", inner.get("_out_features"))
    if chosen and found.settles is None:
        assert config.out_features == chosen
    for field in config.field_names():
        if field in inner and inner[field] is not None:
            assert equal(found.fields[field], inner[field]), field


def equal(ours, theirs):
    """Whether two values say the same: one side of a square says it for both."""
    ours, theirs = json.loads(json.dumps([ours, theirs]))
    return theirs in (ours, [ours, ours])


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_read_is_written_and_read_again(name):
    config = stated(name).config({})
    again = backbone_class(config.model_type).config_class.from_dict(json.loads(config.to_json_string()))
    assert again == config


# fields whose default is another on purpose: transformers' DINOv2 has patches of 16 pixels, as no published one has
_OTHER_DEFAULTS = {("dinov2", "patch_size")}


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", names())
def test_what_a_file_leaves_out_has_the_value_that_it_has_in_transformers(name):
    """A config inside a bigger model's file holds only what differs from the class's defaults."""
    transformers = pytest.importorskip("transformers")
    config_class = backbone_class(name).config_class
    ours = config_class()
    try:
        theirs = transformers.AutoConfig.for_model(ours.model_type)
    except ValueError:
        pytest.skip("this transformers has no such architecture")
    ours, theirs = (json.loads(json.dumps(config.to_dict())) for config in (ours, theirs))
    for field in config_class.field_names():
        if field in theirs and (name, field) not in _OTHER_DEFAULTS:
            assert equal(ours[field], theirs[field]), field
