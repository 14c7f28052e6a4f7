"""The plugins that a recorded run used: a rerun needs the same ones."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from bbframe import registry

log = logging.getLogger("bbframe")


def check_recorded_plugins(source: Path) -> None:
    """Compare the plugins of a run folder, or of a checkpoint in one, with those that are loaded.

    Raises ValueError that names the `--plugin` to give; another version of its file is said in one line.
    """
    folder = source if source.is_dir() else source.parent.parent
    file = folder / "environment.json"
    recorded = json.loads(file.read_text(encoding="utf-8")).get("plugins") or [] if file.is_file() else []
    loaded = {plugin.module: plugin for plugin in registry.plugins()}
    for plugin in recorded:
        module = plugin["module"]
        if module not in loaded:
            raise ValueError(f"{source}: its run used the plugin {module!r}; give it again: --plugin {module}")
        if plugin.get("sha256") != loaded[module].sha256:
            log.warning("the plugin %s is another file than the run in %s used", module, source)
