"""Evaluation: from scores to rows, intervals, records and flags."""
