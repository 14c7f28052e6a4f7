"""What networks make of images: features of all stages, kept for later questions."""
