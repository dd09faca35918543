"""Text of strangers on a page and in a spreadsheet."""

from __future__ import annotations

import pytest

from dicom_secure_node.audit_web import showing
from dicom_secure_node.audit_web.text import cell, visible

CELLS = {
    "nothing": ("", ""),
    "a name": ("Müller^Jörg", "Müller^Jörg"),
    "a formula": ("=1+1", "'=1+1"),
    "a formula after blanks": ("  =1+1", "  '=1+1"),
    "a formula after a quote": ('"=1+1', "\"'=1+1"),
    "a plus": ("+49 30", "'+49 30"),
    "a minus": ("-1", "'-1"),
    "a function of Lotus": ("@SUM(A1)", "'@SUM(A1)"),
    "wide": ("\uff1d1", "'\uff1d1"),
    "after another locale's separator": ("a;=1", "a;'=1"),
    "after a bar": ("PAT1 | =1", "PAT1 | '=1"),
    "after a tab": ("a\t=1", "a\\u0009=1"),
    "after a line feed": ("a\n=1", "a\\u000a=1"),
    "in the middle of a word": ("a=b-c@d", "a=b-c@d"),
}


@pytest.mark.parametrize(("text", "want"), CELLS.values(), ids=CELLS)
def test_cells(text: str, want: str) -> None:
    assert cell(text) == want


VISIBLE = {
    "what turns a line": ("a\u202eb", "a\\u202eb"),
    "an isolate": ("\u2066x\u2069", "\\u2066x\\u2069"),
    "a blank of no width": ("a\u200bb", "a\\u200bb"),
    "an escape": ("\x1b[2J", "\\u001b[2J"),
    "a tag beyond 16 bits": ("\U000e0041", "\\U000e0041"),
    "Hebrew is plain text": ("\u05d0\u05d1", "\u05d0\u05d1"),
}


@pytest.mark.parametrize(("text", "want"), VISIBLE.values(), ids=VISIBLE)
def test_nothing_is_invisible(text: str, want: str) -> None:
    assert visible(text) == want


def test_a_template_escapes_whatever_it_is_given() -> None:
    page = showing.page("error", session=None, path="", status=1, words="<b>&\"'\u202e")
    assert "&lt;b&gt;&amp;&#34;&#39;\\u202e" in page


def test_a_template_that_forgets_a_value_fails() -> None:
    with pytest.raises(Exception, match="words"):
        showing.page("error", session=None, path="", status=1)
