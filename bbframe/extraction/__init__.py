"""What networks make of images before anything is trained: pooled features of all stages, kept on disk."""
