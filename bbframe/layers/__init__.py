"""Arithmetic that two or more architectures share without a flag."""
