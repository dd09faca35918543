"""What verbs print stays on its line and in its columns."""

from __future__ import annotations

import contextlib
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.commands.output import Progress, emit_json, one_line, table


def test_a_table_is_aligned() -> None:
    assert table([("CT1", 3), ("A", 12345)], ("AE", "instances")) == (
        "AE   instances\nCT1  3\nA    12345"
    )


def test_a_table_without_rows_is_its_headers() -> None:
    assert table([], ("AE", "instances")) == "AE  instances"


@given(st.text())
def test_no_text_leaves_its_line_or_moves_the_cursor(text: str) -> None:
    shown = one_line(text)
    assert shown.isprintable()
    assert len(table([(text, "x")], ("a", "b")).splitlines()) == 2


def test_words_people_can_read_stay_as_they_are() -> None:
    assert one_line("Müller, 山田 → CT1") == "Müller, 山田 → CT1"
    assert one_line("a\r\n\x1b[31mb\u202ec") == "a\\r\\n\\x1b[31mb\\u202ec"


def test_json_is_one_line_of_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"path": Path("ä\n"), "at": datetime(2026, 1, 1, tzinfo=UTC)})
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.count("\n") == 1
    assert json.loads(out) == {"path": "ä\n", "at": "2026-01-01 00:00:00+00:00"}


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("sending", 2) as progress:
        progress.advance()
        progress.advance()
    assert capsys.readouterr() == ("", "")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_draws_on_a_terminal() -> None:
    screen = _Terminal()
    with contextlib.redirect_stderr(screen), Progress("sending", 2) as progress:
        progress.advance()
    assert "sending" in screen.getvalue()
