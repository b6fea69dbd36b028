"""Errors that a user can mend: one clear line each, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave: the message is one line that names the place and the way out."""


class RunFailed(Exception):
    """A run that cannot go on, through no mistake in what the user gave: one clear line with the reason."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns a hint such as ``; did you mean 'frames'?``, or the choices when none is near."""
    known = sorted(choices)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; choices: {', '.join(known)}" if known else ""
