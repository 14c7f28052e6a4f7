"""Every option has a type and a range, and every mutated value is either sensible or refused in one line."""

from __future__ import annotations

import copy
import dataclasses
import math
import random
import re
import signal
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import torch

from bbframe import ranges, registry
from bbframe.app.composition import composition, plain_data
from bbframe.app.option_help import option_help, option_hints
from bbframe.auto import AutoBackbone, backbone_class, list_backbones
from bbframe.factory import Source
from bbframe.layers.activation import activation
from bbframe.predict.predict_options import PredictOptions
from bbframe.run.configuration import RunOptions, Strategy, TrainerOptions, parse_configuration
from bbframe.schema import Length, Range, Text, type_hints
from docs import options as options_page

COCO = ("data=coco", "data.train_images=p", "data.train_annotations=b.json")
CONFIGURATIONS = [
    *((f"backbone={name}",) for name in list_backbones()),
    ("backbone=convnext_tiny", "backbone.source=timm"),
    ("optim=sgd", "schedule=multistep", "data=image_folder", "data.root=photos", "head=multi_level"),
    ("schedule=constant",),
    ("task=detection",),
    ("task=detection", *COCO, "head=mask_rcnn"),
    ("task=detection", "data=voc", "data.root=p", "head=retinanet"),
    ("task=detection", "head=faster_rcnn"),
]
inf, nan = math.inf, math.nan
NUMBERS = [
    0,
    1,
    -1,
    7,
    1000003,
    10**9,
    2**32,
    -(10**12),
    10**30,
    10**400,
    -0.5,
    0.37,
    3.7,
    1e-30,
    1e30,
    inf,
    -inf,
    nan,
]
TEXTS = ["", " ", "x", "gel", "naïve", "日本", "a\nb", "\x00", "\ud800", "${seed}", "../..", "auto", "all", "1", "nan"]
LISTS = [[], [0], [300], [-1], [None], [nan], [1, 2], [3, 4, 6, 0], [[1]], [""], ["x"], [1] * 1000]
OTHERS = [None, True, False, {}, {"a": 1}, {"name": [0]}, {"name": "x"}, {"_target_": "os.system"}, {1: nan}]
# what a message may call a key
ALIASES = {"model_type": "backbone", "name": "backbone"}
ELEMENTS = [0, -1, 10**9, 2**40, 0.5, nan, inf, None, "x", [1], 1000003]


@cache
def _composed(overrides):
    with composition() as compose:
        return plain_data(compose, list(overrides))


def keys(node, prefix=()):
    for key, value in node.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from keys(value, (*prefix, key))


def mutations(value):
    """Values of every kind, and those that are near the present one."""
    yield from [*NUMBERS, *TEXTS, *LISTS, *OTHERS]
    if isinstance(value, list) and value:
        for element in ELEMENTS:
            yield from ([*value[:-1], element], [element, *value[1:]])
        yield from (value[:-1], [*value, value[-1]], value * 300, [value])
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from (-value, value * 10**6, value * 1000, str(value))


@contextmanager
def at_most(seconds):
    def stop(*_):
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def cases(overrides, share, seed=0):
    generator = random.Random(f"{overrides} {seed}")
    base = _composed(overrides)
    for path in keys(base):
        node = base
        for key in path:
            node = node[key]
        for value in mutations(node):
            if generator.random() < share:
                yield path, value


def mutated(base, path, value):
    data = copy.deepcopy(base)
    node = data
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return data


@pytest.mark.parametrize("share", [0.015, pytest.param(0.06, marks=pytest.mark.slow)])
@pytest.mark.parametrize("overrides", CONFIGURATIONS, ids=" ".join)
def test_a_mutated_value_is_accepted_or_refused_in_one_line(overrides, share):
    """Any other error, a hang, and a line that does not name the key fail."""
    parse_configuration(_composed(overrides))  # imports timm, which may take longer than any check
    for path, value in cases(overrides, share):
        with at_most(30):
            try:
                parse_configuration(mutated(_composed(overrides), path, value))
            except ValueError as error:
                text = str(error)
                assert "\n" not in text, (path, value)
                assert len(text) < 800, (path, value)
                assert named(path, text), (path, value, text)


def named(path, text):
    """Whether a message names the key, or the one that must go with it, or timm's reason."""
    words = {path[-1], *path[-1].split("_")[-2:-1], path[-1].rpartition("_")[2], *ALIASES.get(path[-1], "").split()}
    return bool(words & set(re.findall(r"\w+", text)))


NONSENSE = """
backbone.mlp_ratio=-1 1e30 inf nan 0|swin
backbone.initializer_range=-1 nan 0|swin
backbone.layer_norm_eps=-1 0 nan inf|swin
backbone.window_size=0 -1 100000|swin
backbone.layer_scale_init_value=nan -1 inf|convnext
backbone.depths=[3,4,6,0] [-1,4,6,3] [2,2,1000000000,2] []|bit
backbone.depths=[3,4,6,0] [-1,4,6,3] [2,2,1000000000,2] []|resnet
backbone.hidden_sizes=[256,512,1000000000,2048]|resnet
backbone.hidden_act='gel' ''|resnet
backbone.checkpoint=''|resnet
backbone.timm_name=''|resnet
backbone.sha256='' 'abc' {}|resnet
backbone.revision='' 'a..b' 'a b'|resnet
backbone.num_channels=0 7 nan|resnet
backbone.num_hidden_layers=0 1000000000|dinov2
backbone.image_size=0 1000000 [224,0]|dinov2
trainer.devices=-1 0 1000003 '' 'many' [0,1] [] 2.5|resnet
trainer.strategy='dpp' ''|resnet
trainer.gradient_clip_val=-1 nan inf|resnet
trainer.limit_train_batches=0 0.0 -1 1.5 nan|resnet
trainer.max_steps=0 -2|resnet
trainer.max_epochs=0 -2 1000000000000|resnet
trainer.ema_decay=0 1 nan|resnet
trainer.check_val_every_n_epoch=0 11|resnet
schedule.warmup_epochs=inf nan -1|resnet
schedule.final=2 nan|resnet
optim.weight_decay=3.7 nan -1|resnet
optim.lr=inf nan 0 -1 1e9|resnet
optim.backbone_lr=nan 0|resnet
optim.betas=[0.9,1.0] [0.9] [nan,0.9]|resnet
data.mean=[nan] [2] [0.5,0.5]|resnet
data.std=[0] [inf] [-1]|resnet
data.augment.mixup=inf nan -1|resnet
data.augment.degrees=inf 181|resnet
data.batch_size=0 1000000000 nan|resnet
data.image_size=0 1000000 [32]|resnet
data=[300] 7|resnet
data.name=[0] None ''|resnet
seed=-1 4294967296 1.5 nan|resnet
name='' 'a/b' '..'|resnet
tags=[''] 'x'|resnet
output_dir='' None|resnet
rerun=''|resnet
ckpt_path=''|resnet
task.label_smoothing=1 nan -0.1|resnet
task.freeze=-1 99 'some'|resnet
head.dropout=1 nan|resnet
"""
LINES = [
    (name, key, value)
    for line in NONSENSE.strip().splitlines()
    for rest, name in [line.split("|")]
    for key, _, values in [rest.partition("=")]
    for value in re.findall(r"'[^']*'|\[[^\]]*\]|\S+", values)
]


@pytest.mark.parametrize(("name", "key", "text"), LINES, ids=[f"{n}-{k}={t}" for n, k, t in LINES])
def test_nonsense_is_refused_at_composition(name, key, text):
    value = eval(text, {"inf": inf, "nan": nan})
    base = _composed((f"backbone={name}",))
    with at_most(10), pytest.raises(ValueError, match=re.escape(key.rpartition(".")[2].partition("_")[0])) as caught:
        parse_configuration(mutated(base, tuple(key.split(".")), value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("head.channels", 4294967296),
        ("head.num_convs", 10**9),
        ("head.anchor_scale", inf),
        ("head.nms_threshold", nan),
    ],
)
def test_a_detector_of_no_sense_is_refused(key, value):
    with pytest.raises(ValueError, match=f"^head: {key[5:]}="):
        parse_configuration(mutated(_composed(("task=detection",)), tuple(key.split(".")), value))


def unbounded(hint: Any) -> list[Any]:
    """The numbers and texts of a type that no constraint stands beside."""
    origin = get_origin(hint)
    if origin is Annotated:
        return [] if not isinstance(hint.__metadata__[0], Length) else unbounded(hint.__origin__)
    if origin is Literal or hint in (bool, type(None)) or dataclasses.is_dataclass(hint):
        return []
    return [found for arg in get_args(hint) if arg is not Ellipsis for found in unbounded(arg)] or [hint] * (
        not get_args(hint)
    )


def options_classes():
    parts = [registry.find(kind, name) for kind in registry.KINDS for name in registry.names(kind)]
    ours = [part.options for part in parts if part.plugin is None]
    return sorted({RunOptions, TrainerOptions, PredictOptions, Source, *ours}, key=lambda cls: cls.__name__)


# what timm takes is timm's, and the config inside of another one has ranges of its own; file names are no text of ours
FREE = {"model_args", "stages_of", "sha256", "selection"}


@pytest.mark.parametrize("cls", options_classes(), ids=lambda cls: cls.__name__)
def test_no_field_is_without_a_range(cls):
    found = {name: unbounded(hint) for name, hint in type_hints(cls).items() if name not in FREE}
    for hint in list(type_hints(cls).values()):
        for inner in get_args(hint):
            if dataclasses.is_dataclass(inner) and get_origin(hint) is not Annotated:
                found.update({f"{inner}.{name}": unbounded(field) for name, field in type_hints(inner).items()})
    assert {name: hints for name, hints in found.items() if hints} == {}


@pytest.mark.parametrize("name", [name for name in list_backbones() if name != "timm"])
def test_a_config_that_is_built_by_hand_is_checked_too(name):
    cls = backbone_class(name).config_class
    with pytest.raises(ValueError, match=rf"^{cls.model_type}: num_channels=0 must be an integer within 1\.\.4096"):
        cls(num_channels=0)


def test_every_activation_of_the_configs_is_there():
    for name in get_args(ranges.Activation):
        assert activation(name)(torch.zeros(1)) == 0


def test_the_strategies_are_lightnings():
    from lightning.pytorch.strategies import StrategyRegistry

    assert set(get_args(Strategy)) == {"auto", *StrategyRegistry.available_strategies()}


def test_too_many_parameters_are_counted_without_memory(monkeypatch):
    monkeypatch.setattr("bbframe.auto.machine_memory", lambda: 2**26)
    text = (
        r"^resnet: depths=\(3, 4, 6, 4\) make weights of 0\.10\d GiB, which exceed the 0\.0625 GiB of memory here; ch"
    )
    with pytest.raises(ValueError, match=text):
        AutoBackbone.from_config({"model_type": "resnet", "depths": [3, 4, 6, 4]})
    monkeypatch.setattr("bbframe.auto.machine_memory", lambda: 2**27)
    plan = parse_configuration(_composed(("backbone=resnet",)))
    with pytest.raises(ValueError, match=r", 4 times in training, exceed"):
        plan.check_machine()


@pytest.mark.parametrize(
    ("key", "overrides", "lines"),
    [
        ("optim.lr", (), ["type:    a number above 0 and at most 100", "value:   0.001"]),
        ("optim.lr", ("optim=sgd",), ["value:   0.05"]),
        ("data.augment.translate", (), ["a number at least 0 and below 1", "meaning: shift, at most this fraction"]),
        ("backbone.depths", (), ["a list of integers within 1..256 blocks (1..8 values)", "value:   [2, 2, 2, 2]"]),
        ("backbone.name", ("backbone=timm",), ["text (not empty)", 'value:   "resnet18"', "timm's name"]),
        (
            "trainer.early_stopping",
            (),
            ["an integer within 1..1000000 epochs or null", "epochs without a better result"],
        ),
        ("seed", (), ["an integer within 0..4294967295", "meaning: of everything random"]),
        ("data.augment", (), ["data.augment.flip"]),
    ],
)
def test_help_tells_type_range_value_and_meaning(key, overrides, lines):
    text = option_help(_composed(overrides), key)
    assert all(line in text for line in lines), text


def test_help_of_an_unknown_option_names_the_nearest():
    with pytest.raises(ValueError, match=r"^--help optim\.lrr: no such option; did you mean 'optim\.lr'\?$"):
        option_help(_composed(()), "optim.lrr")


@pytest.mark.parametrize("overrides", CONFIGURATIONS, ids=" ".join)
def test_help_knows_every_key_of_a_configuration(overrides):
    base = _composed(overrides)
    known = option_hints(base)
    top = {"backbone", "task", "head", "data", "optim", "schedule", "trainer", "logger", "callbacks"}
    found = {".".join(path) for path in keys(base)} - top - {"backbone.model_type"}
    assert {key for key in found if key not in known and not key.startswith("logger")} == set()


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        (Range(0, 1), [0, 1, 0.5], [-0.1, 1.1, nan, inf]),
        (Range(0, 1, low_open=True, high_open=True), [0.5], [0, 1, nan]),
        (Length(1, 2), [[1], [1, 2]], [[], [1, 2, 3]]),
        (Text(), ["a", "ä b", "日本"], ["", " ", "a\nb", "\x00", "\ud800", "x" * 5000]),
    ],
)
def test_what_a_constraint_holds(constraint, good, bad):
    assert all(map(constraint.holds, good))
    assert not any(map(constraint.holds, bad))


@pytest.mark.long
def test_the_page_of_options_is_what_the_code_says():
    """`python docs/options.py` writes it again."""
    assert options_page.PAGE.read_text(encoding="utf-8") == options_page.page()
