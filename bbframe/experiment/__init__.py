"""Runs: from a checked configuration to a folder that tells all about it."""
