"""Compute: where jobs run, and how progress is shown."""
