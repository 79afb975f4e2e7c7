"""Storage: the content-addressed store and the output directories."""
