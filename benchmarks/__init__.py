"""Benchmarks and validation of nicheloop: run from the repository, not part of the installed package."""
