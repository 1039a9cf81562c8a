"""One module for each metadata operation."""
