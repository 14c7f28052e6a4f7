"""Image files and pixels: from any picture to what a network takes."""
