"""Which backbone, and which of its stages: scores of features, with their doubt."""
