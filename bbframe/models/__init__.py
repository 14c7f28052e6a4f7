"""The architectures, one a file; a file's name is the architecture's `model_type`."""
