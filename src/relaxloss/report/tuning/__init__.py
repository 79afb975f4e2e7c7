"""Reports of tunings."""
