"""What nicheloop's answers are worth, measured: ``python -m benchmarks.validation``.  Writes docs/validation.md."""
