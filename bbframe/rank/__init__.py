"""Which backbone and which of its stages suit a user's images: scores of frozen features, their doubt, the race."""
