"""One run: from a checked configuration to a folder that holds all of it."""
