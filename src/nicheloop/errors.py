"""Errors for people: what is wrong, where, what to do."""

from __future__ import annotations

import re


class NicheloopError(Exception):
    """Base of all errors raised on purpose."""


class UserError(NicheloopError):
    """Bad input or configuration.  The command line prints the lines without a traceback."""

    def __init__(self, messages: str | list[str]):
        self.messages = [messages] if isinstance(messages, str) else list(messages)
        super().__init__("\n".join(self.messages))


class NotAssessable(NicheloopError):
    """A sample's data do not allow this analysis; the stage ends with success, an empty table and this status."""

    def __init__(self, status: str, reason: str):
        self.status, self.reason = status, reason
        super().__init__(f"{status}: {reason}")


def error_number(err: BaseException) -> int | None:
    """Number of the system's error; libraries hide it in their text: h5py, for one, only says ``errno = 28``."""
    code = getattr(err, "errno", None)
    if code is None and (found := re.search(r"errno = (\d+)|\[Errno (\d+)\]", str(err))):
        code = int(found[1] or found[2])
    return code
