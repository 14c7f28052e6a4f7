"""One HTML file from sections: templates, style, scripts and data inlined, and a policy that nothing else may run.

Text in templates is escaped, data travels as JSON in which no tag can stand, and the scripts put it into text nodes.
Should a text from a data set still become markup, the content security policy refuses to run or load it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bbframe.files import visible, write_text

HERE = Path(__file__).parent
MOST_BYTES = 8_000_000  # of a page, so that it can be sent by mail


@dataclass(frozen=True)
class Section:
    """A part of a page: `templates/<template>.html` with `data`, below a heading; "" goes on below the last one.

    `data` are plain values: mappings, lists, texts, numbers, None. Beside a template may lie a script and a style of
    the same name (.js, .css). The script calls `page.kind("<template>", (block, data) => ...)`, and then gets the
    element of each section with its data. `note` is a sentence below the heading.
    """

    heading: str
    template: str
    data: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def write_page(path: Path, title: str, sections: Sequence[Section], subtitle: str = "") -> None:
    """Write a page that is whole or absent. Raises ValueError when it would have more than `MOST_BYTES`."""
    text = page_text(title, sections, subtitle)
    if (size := len(text.encode(errors="backslashreplace"))) > MOST_BYTES:
        largest = max(sections, key=lambda section: len(json_text(section.data)))
        raise ValueError(
            f"{path}: would have {size} bytes, a page has at most {MOST_BYTES}; its largest section is "
            f"{largest.template!r}"
        )
    write_text(path, text)


def page_text(title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """The HTML of a page."""
    kinds = list(dict.fromkeys(section.template for section in sections))
    style = inlined("page.css", *(f"templates/{kind}.css" for kind in kinds))
    own = inlined("page.js", *(f"templates/{kind}.js" for kind in kinds)) + "page.start();\n"
    scripts = [inlined("vendor/chart.umd.min.js").partition("//# sourceMappingURL")[0], own]
    groups: list[dict[str, Any]] = []
    for section in sections:
        if section.heading or not groups:
            groups.append({"heading": section.heading, "blocks": []})
        block = {"kind": section.template, "data": section.data, "note": section.note}
        groups[-1]["blocks"].append({**block, "json": Markup(json_text(section.data))})
    scripted = [kind for kind in kinds if (HERE / "templates" / f"{kind}.js").is_file()]
    return (
        page_templates()
        .get_template("page.html")
        .render(
            title=title,
            subtitle=subtitle,
            groups=groups,
            scripted=scripted,
            style=Markup(style),
            scripts=[Markup(script) for script in scripts],
            policy=policy(style, scripts),
        )
    )


def policy(style: str, scripts: Sequence[str]) -> str:
    """The content security policy that allows this style, these scripts and images inside of the page alone."""
    hashes = " ".join(map(source_hash, scripts))
    return (
        f"default-src 'none'; img-src data:; style-src {source_hash(style)}; script-src {hashes}; base-uri 'none'; "
        "form-action 'none'"
    )


def source_hash(text: str) -> str:
    """How a content security policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def json_text(data: Any) -> str:
    """Plain data as JSON that can stand inside of a script element: ASCII, without "<", NaN becomes null."""
    text = json.dumps(json_ready(data), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def json_ready(data: Any) -> Any:
    """Plain data with its control characters spelled out, and None in the place of numbers that are not finite."""
    if isinstance(data, Mapping):
        return {str(key): json_ready(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [json_ready(value) for value in data]
    if isinstance(data, float):
        return data if abs(data) < float("inf") else None  # the comparison is false for NaN
    return visible(data, keep="\n\t") if isinstance(data, str) else data


@cache
def inlined(*names: str) -> str:
    """The files of this folder that exist, one after another."""
    files = [HERE / name for name in names if (HERE / name).is_file()]
    return "".join(file.read_text(encoding="utf-8") for file in files)


@cache
def page_templates() -> jinja2.Environment:
    """Jinja with our templates; all text is escaped, and a name that is missing is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value, keep="\n\t") if type(value) is str else value,
    )
