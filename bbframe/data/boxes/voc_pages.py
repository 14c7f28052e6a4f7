"""One image's annotation in Pascal VOC's XML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree  # expat fetches no external entity, and stops those that would grow without end

TAGS = frozenset("annotation filename size width height object name difficult bndbox xmin ymin xmax ymax".split())
CHINESE = {"gb2312": "gb18030", "gbk": "gb18030"}  # which holds the others


class VocObject(NamedTuple):
    """What an annotation says about an object; `box` holds those of xmin, ymin, xmax and ymax that are numbers."""

    name: str | None
    box: list[float]
    difficult: bool


class Page(NamedTuple):
    """An annotation file: its image's name and sides, the objects, and what was assumed to read it.

    That is little of what a parsed file occupies.
    """

    path: str
    width: float
    height: float
    objects: list[VocObject]
    assumed: tuple[str, ...]


def read_page(path: Path) -> Page:
    """Raises OSError, ElementTree.ParseError, ValueError, LookupError or RecursionError for what is no annotation."""
    assumed: list[str] = []
    document = _parsed(path, assumed)
    if _plain_tags(document):
        assumed.append("annotations whose tags are in capitals or have a namespace")
    document = _annotation(document, assumed)
    found = document.findall("object") or document.findall("*/object")
    if any(element.find(".//object") is not None for element in found):
        assumed.append("annotations with objects within an object, which are left out")
    objects = [_object(element, assumed) for element in found]
    width, height = (_number(document.findtext(f"size/{side}")) or 0.0 for side in ("width", "height"))
    name = (document.findtext("filename") or "").strip()
    return Page(name, width, height, objects, tuple(dict.fromkeys(assumed)))


def _parsed(path: Path, assumed: list[str]) -> ElementTree.Element:
    """The outermost element. Python decodes the encodings that expat does not know."""
    try:
        return ElementTree.parse(path).getroot()
    except (ValueError, LookupError):
        raw = path.read_bytes()
        said = re.match(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)[\"']", raw[:200])
        if said is None:
            raise
        encoding = said[1].decode("ascii").lower()
        text = raw.decode(CHINESE.get(encoding, encoding))
        assumed.append(f"annotations in the encoding {encoding}")
        return ElementTree.fromstring(text)


def _plain_tags(document: ElementTree.Element) -> bool:
    """Take the namespaces and capitals off all tags; whether that told anything."""
    changed = False
    for element in document.iter():
        tag = element.tag.rpartition("}")[2].lower()
        changed = changed or (tag != element.tag and tag in TAGS)
        element.tag = tag
    return changed


def _annotation(document: ElementTree.Element, assumed: list[str]) -> ElementTree.Element:
    """The element of the annotation: the outermost one, or the only one below it."""
    if document.tag == "annotation":
        return document
    inner = document.findall("annotation")
    if len(inner) > 1:
        raise ValueError(f"holds {len(inner)} annotations; write each into a file of its own")
    if not inner and document.find("object") is None:
        raise ValueError(f"is no annotation: its outermost tag is <{document.tag:.40}>")
    assumed.append("annotations whose outermost tag is another than <annotation>")
    return inner[0] if inner else document


def _object(element: ElementTree.Element, assumed: list[str]) -> VocObject:
    sides = [_number(element.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    box = [side for side in sides if side is not None]
    name = " ".join((element.findtext("name") or "").split()) or None
    said = (element.findtext("difficult") or "").strip().lower()
    number = _number(said)
    if said not in ("", "unspecified", "false", "no", "true", "yes") and number is None:
        assumed.append("objects whose difficult is neither yes nor no, taken for no")
    return VocObject(name, box, said in ("true", "yes") or bool(number))


def _number(text: str | None) -> float | None:
    """The number that a text holds, if there is a finite one."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < 1e9 else None
