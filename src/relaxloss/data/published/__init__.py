"""Published data sets: one file per source."""
