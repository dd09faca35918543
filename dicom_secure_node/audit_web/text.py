"""Text of strangers, fit to be looked at: on a page, and in a spreadsheet.

Names in audit messages are whatever a peer sent. Escaping for HTML is the templates' part; here
it is seen to that nothing is invisible, turns the line around, or is taken for a formula.
"""

from __future__ import annotations

import re

# What makes a cell a formula, also in its wide forms. A cell may begin after a separator that a
# spreadsheet of another locale splits at, or after blanks and quotes it drops.
_FORMULA = re.compile(r"(^|[;,|\t])([\s\"']*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20\u2212])")


def visible(text: str) -> str:
    """Return `text` on one line; what cannot be seen is spelt out, e.g. ``\\u202e``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _spelt(c) for c in text)


def _spelt(character: str) -> str:
    number = ord(character)
    return f"\\U{number:08x}" if number > 0xFFFF else f"\\u{number:04x}"


def cell(text: str) -> str:
    """Return `text` for a cell of a CSV file: visible, and no spreadsheet calculates with it."""
    return _FORMULA.sub(r"\1\2'", visible(text))
