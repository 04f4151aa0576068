"""The one exception class."""

from __future__ import annotations


class Error(Exception):
    """What steer raises: the message says what was expected, what came, where, and what to do next.

    `code` is one of "io", "format", "shape", "config", "unsupported", "argument", "cancelled".
    """

    code: str

    def __init__(self, message: str, code: str = "argument") -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[Error], tuple[str, str]]:
        return Error, (str(self), self.code)


Error.__module__ = "steer"  # as it is imported, and as tracebacks should name it
