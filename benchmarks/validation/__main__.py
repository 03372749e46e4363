"""Command line: ``python -m benchmarks.validation [--section NAME ...] [--full] [--seed N] [--page-only]``."""

from __future__ import annotations

import sys

from benchmarks.validation.harness import main

sys.exit(main())
