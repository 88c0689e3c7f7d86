"""A training from settings to its last checkpoint: what it is assembled from, and how it is resumed and saved."""
