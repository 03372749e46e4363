"""``python -m nicheloop``: the command line."""

from __future__ import annotations

import sys

from nicheloop import warm


def main() -> int:
    """Hand a job to the process that has the libraries loaded, or do it here."""
    try:
        code = warm.ask(sys.argv[1:])
    except KeyboardInterrupt:
        return 130
    if code is None:
        from nicheloop import cli

        code = cli.main()
    return code


if __name__ == "__main__":
    sys.exit(main())
