"""A trained network as one file that runs elsewhere: graphs of tensors, formats, checks, eight-bit numbers."""
