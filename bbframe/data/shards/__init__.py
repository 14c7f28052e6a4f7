"""Data sets of files that hold many images each: written, read from a disk or a URL, in an order that suits them."""
