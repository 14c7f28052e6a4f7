"""The embedding map as a section of a ranking's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bbframe.report.page.html_page import Section
from bbframe.report.ranking_words import is_measured, untrained_notice, with_untrained


def embedding_sections(ranking: Mapping[str, Any], found: Mapping[str, Any] | None) -> list[Section]:
    """The map of embedding_map.json; nothing without one."""
    if not found or not found["points"]:
        return []
    shares = [f", {share:.0%} of the variance" for share in found.get("explained") or () if is_measured(share)] + [
        "",
        "",
    ]
    axes = [f"{word} component{share}" for word, share in zip(("first", "second"), shares, strict=False)]
    views = [{"name": "PCA", "axes": axes, "points": found["points"]}]
    if found.get("umap"):
        views.append({"name": "UMAP", "axes": ["UMAP 1", "UMAP 2"], "points": found["umap"]})
    own = [one for one in ranking["backbones"] if one["name"] == found.get("backbone") and one.get("untrained")]
    what = " ".join(str(found[key]) for key in ("backbone", "stage") if found.get(key))
    title = f"{what} (untrained)" if own else with_untrained(what, ranking)
    thumbnails = [uri if str(uri).startswith("data:image/") else "" for uri in found.get("thumbnails") or ()]
    data = {
        "views": views,
        "labels": found["labels"],
        "names": list(found.get("names") or ()),
        "thumbnails": thumbnails,
        "classes": list(ranking.get("class_names") or ()),
        "title": title,
    }
    shown = sum(map(bool, thumbnails))
    kind = "boxes" if ranking["task"] == "detection" else "images"
    photos = "" if shown == len(found["points"]) else f" {shown:,} of them have a photo in this page."
    note = (
        f"{len(found['points']):,} {kind} as {what} sees them: near points are alike to it. Two axes leave out most "
        f"of what it knows, so classes that overlap here may still be told apart.{photos}"
    )
    return [Section("Embedding map", "embedding_map", data, f"{untrained_notice(ranking)} {note}".strip())]
