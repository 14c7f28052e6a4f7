"""The text table of a ranking: its columns, its head, ties, untrained weights and what failed."""

from __future__ import annotations

import re

import pytest

from bbframe.report.ranking_table import ranking_markdown, ranking_text
from tests.report.made_ranking import made_ranking

HOSTILE = "</td><script>x</script>|`a`\u202e\x1b[31m\nnext line"


def table_of(text):
    """The lines from the table's header to its last row."""
    lines = text.splitlines()
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-"})
    rows = [line for line in lines[rule + 1 :] if re.match(r"\d+ ", line)]
    return lines[rule - 1], rows


def test_the_table_has_every_column_and_fits_the_terminal():
    ranking = made_ranking()
    header, rows = table_of(ranking_text(ranking))
    assert header.split("  ") != []
    for title in ("backbone", "ridge", "P(best)", "verdict", "stages", "prior", "M params", "ms", "race val", "test"):
        assert title in header
    assert len(rows) == 13
    assert (
        rows[0].split() == ("1 convnextv2_nano 0.965 [0.954, 0.975] 0.52 first 2,4 81.9 15.0 31 0.981 0.977").split()
    )
    assert rows[-1].split()[-3:] == ["131", "-", "-"]
    table = [header, *rows]
    assert max(map(len, table)) <= 120
    assert max(len(line) for line in ranking_text({**ranking, "failed": []}).splitlines()) <= 120


def test_the_head_says_what_the_score_is_and_that_ties_are_ties():
    text = ranking_text(made_ranking())
    assert "score [95 % interval]: leave-one-out ridge accuracy of the chosen stages; 1,000 train images of" in text
    assert "3 backbones cannot be told apart from the first" in text
    assert "4,210 boxes in 1,000 train images of coco" in ranking_text(made_ranking(detection=True))
    alone = made_ranking(1)
    assert "told apart" not in ranking_text(alone)


@pytest.mark.parametrize("write", [ranking_text, ranking_markdown])
def test_untrained_weights_are_named_in_the_head_and_in_their_row(write):
    some = write(made_ranking(4, untrained=("swinv2_tiny",))).replace("\\", "")
    assert "Some weights are untrained: swinv2_tiny." in some
    assert "swinv2_tiny (untrained)" in some
    assert "convnextv2_nano (untrained)" not in some
    every = write(made_ranking(2, untrained=("convnextv2_nano", "dinov2_small")))
    assert "All weights are untrained" in every
    assert "untrained" not in write(made_ranking(4))


def test_a_flag_alone_is_enough_to_say_untrained():
    assert "All weights are untrained" in ranking_text({**made_ranking(2), "untrained": True})


def test_a_long_name_is_cut_and_still_says_that_it_is_untrained():
    name = "vit_so400m_patch14_reg4_gap_378.v2_webli_of_some_length"
    ranking = made_ranking(2)
    ranking["backbones"][0] |= {"name": name, "untrained": True}
    ranking["backbones"][1]["name"] = name
    _, rows = table_of(ranking_text(ranking))
    assert "vit_so400m_patch1… (untrained)" in rows[0]
    assert "vit_so400m_patch14_reg4_gap_3… " in rows[1]
    assert name in ranking_markdown(ranking).replace("\\", "")


def test_columns_without_a_value_are_left_out():
    header, _ = table_of(ranking_text(made_ranking(3, race=False, prior=False)))
    assert not {"race", "prior", "test"} & set(header.split())
    assert "prior" not in ranking_text(made_ranking(3, race=False, prior=False))


def test_what_failed_is_named_with_its_reason():
    text = ranking_text(made_ranking(2))
    assert "failed: maskformer_swin_tiny: no weights: facebook/x cannot be reached" in text
    nothing = {**made_ranking(1, race=False), "backbones": []}
    assert ranking_text(nothing).startswith("no backbone could be ranked")
    assert "failed: maskformer" in ranking_text(nothing)
    assert "no backbone could be ranked" in ranking_markdown(nothing)


def test_a_value_that_is_missing_is_a_dash():
    ranking = made_ranking(2)
    missing = dict.fromkeys(
        ("score", "low", "high", "probability_best", "params", "latency_seconds", "chosen", "race")
    )
    ranking["backbones"][1] |= {**missing, "score": float("nan")}
    _, rows = table_of(ranking_text(ranking))
    assert rows[1].split() == ["2", "dinov2_small", "-", "-", "tied", "-", "81.1", "-", "-", "-", "-"]


def test_hostile_names_stay_one_line_of_text():
    ranking = made_ranking(2)
    ranking["backbones"][0]["name"] = ranking["failed"][0]["name"] = ranking["failed"][0]["reason"] = HOSTILE
    ranking["notes"] = [HOSTILE, HOSTILE]
    for write in (ranking_text, ranking_markdown):
        text = write(ranking)
        assert not re.search("[\u202e\x1b]", text)
        assert len(text.splitlines()) == len(write(made_ranking(2)).splitlines())
    mark = ranking_markdown(ranking)
    assert "<script>" not in mark
    rows = [line for line in mark.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
