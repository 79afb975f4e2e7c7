"""Auditing: how well membership can be inferred from a given model."""
