"""Data sets of labelled images."""
