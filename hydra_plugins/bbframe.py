"""The sweeper as a plugin: Hydra accepts plugins from the package `hydra_plugins` alone, which has no __init__.py."""

from bbframe.app.sweeper import CheckedSweeper


class BackboneSweeper(CheckedSweeper):
    """What `hydra/sweeper=bbframe` chooses."""
