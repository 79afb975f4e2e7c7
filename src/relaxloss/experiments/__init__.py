"""Experiments: the plan, its jobs, the run and its result."""
