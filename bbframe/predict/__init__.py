"""A trained network applied to images."""
