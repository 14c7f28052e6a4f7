"""Words choose backbones: lists, patterns and names; the default is a small and a standard variant of each kind."""

import pytest

from bbframe.rank.candidates import (
    Candidate,
    chosen_candidates,
    default_candidates,
    from_catalog,
    unknown_word,
    without_twins,
)


def one(name, millions, architecture=None, checkpoint="same"):
    architecture = architecture or name.partition("_")[0]
    weights = f"hub/{name}" if checkpoint == "same" else checkpoint
    return Candidate(name, (f"backbone={name}",), architecture, millions * 1e6, weights)


CATALOG = [
    one("swin_tiny", 27.5),
    one("swin_base", 86.7),
    one("swin_base_384_in22k", 86.9),
    one("swin_large", 195),
    one("resnet18", 11.2, "resnet"),
    one("resnet50", 23.5, "resnet"),
    one("beit_base", 85.8),
]


def test_the_default_is_the_largest_small_and_the_largest_standard_variant_and_the_plainest_of_equals():
    assert [c.name for c in default_candidates(CATALOG)] == ["swin_tiny", "resnet50", "swin_base", "beit_base"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["small"], ["swin_tiny", "resnet18", "resnet50"]),
        (["standard"], ["swin_base", "swin_base_384_in22k", "beit_base"]),
        (["all"], [c.name for c in CATALOG]),
        (["cached"], ["resnet18"]),
        (["swin*"], [c.name for c in CATALOG[:4]]),
        (["resnet??", "beit_base", "resnet18"], ["resnet18", "resnet50", "beit_base"]),
    ],
)
def test_words_choose(words, names):
    found, unknown = chosen_candidates(words, CATALOG, lambda c: c.name == "resnet18")
    assert [c.name for c in found] == names
    assert not unknown


def test_a_word_that_chooses_nothing_is_refused_with_what_to_type():
    assert chosen_candidates(["swin_tyni"], CATALOG, lambda c: False) == ([], ["swin_tyni"])
    assert "did you mean 'swin_tiny'?" in str(unknown_word("swin_tyni", ["swin_tiny", "resnet18"]))
    assert "matches no backbone" in str(unknown_word("x*", []))


def test_a_file_of_the_architectures_own_name_is_no_second_candidate():
    twins = [one("resnet", 23.5, "resnet", "hub/r50"), one("resnet50", 23.5, "resnet", "hub/r50"), one("nat", 20)]
    assert [c.name for c in without_twins(twins)] == ["resnet50", "nat"]


def test_the_catalogs_open_choice_of_timm_is_no_candidate():
    lines = [{"backbone": name, "model_type": "x", "parameters": n, "checkpoint": None, "timm_name": None}
             for name, n in (("timm", None), ("resnet18", 11))]  # fmt: skip
    assert [c.name for c in from_catalog(lines)] == ["resnet18"]
