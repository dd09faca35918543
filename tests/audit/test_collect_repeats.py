"""A message that was sent again is told from an event that happened twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_secure_node.__main__ import main
from dicom_secure_node.audit.collecting.repeats import Mark, Repeats, mark_of
from tests.audit.collected import fill

HEAD = "<85>1 2026-11-22T09:30:05.200Z ct1 node 77 DICOM+RFC3881 "
OURS = HEAD + '[meta sequenceId="41"] \ufeff<a/>'
OWN = HEAD + '[a@1 store="5f" sequence="41"][b@1 x="]\\" sequence=\\"9"] <a/>'

MARKS = {
    "by meta": (OURS, Mark(b"ct1 node", 41)),
    "by an element of somebody's own": (OWN, Mark(b"ct1 node 5f", 41)),
    "structured data without a number": (HEAD + '[timeQuality tzKnown="1"] x', None),
    "a number in the message only": (HEAD + '- [meta sequenceId="41"] x', None),
    "a value that never ends": (HEAD + '[meta sequenceId="41', None),
    "the older syslog": ("<13>Nov 22 09:30:05 ct1 node: hello", None),
    "nothing": ("", None),
}


@pytest.mark.parametrize(("raw", "want"), MARKS.values(), ids=MARKS)
def test_the_mark_of_a_message(raw: str, want: Mark | None) -> None:
    assert mark_of(raw.encode()) == want


OTHERS = {
    "sent again, later, by another process": ("09:30:05.200Z", "09:31:00.000Z", True),
    "of another number": ("41", "42", False),
    "of another host": ("ct1", "ct2", False),
    "of another application": (" node ", " viewer ", False),
    "of a store made anew, with the same number": ("<a/>", "<b/>", False),
}


@pytest.mark.parametrize(("old", "new", "want"), OTHERS.values(), ids=OTHERS)
def test_what_is_a_repeat(old: str, new: str, want: bool) -> None:
    repeats = Repeats()
    assert not repeats.see(OURS.encode())
    changed = OURS.replace(old, new).replace(" 77 ", " 78 ")
    assert repeats.see(changed.encode()) is want
    assert (repeats.count, repeats.marked) == (int(want), 2)


def test_what_has_no_number_is_never_a_repeat() -> None:
    repeats = Repeats()
    assert not any(repeats.see(b"<13>1 - - - - - - hello") for _ in range(3))
    assert repeats.marked == 0


def test_memory_is_bounded() -> None:
    repeats = Repeats(remembered=2)
    sent = [OURS.replace("41", str(number)).encode() for number in (1, 2, 1, 3, 1, 2)]
    assert [repeats.see(one) for one in sent] == [False, False, True, False, True, False]


def test_verify_log_counts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, [OURS.encode(), b"<13>1 - - - - - - hello", OURS.encode()])
    argv = ["audit", "verify-log", "--folder", str(tmp_path)]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "1 duplicates of 2 messages with a number of their sender's" in said
    assert main([*argv, "--json"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert json.loads(last)["duplicates"] == 1
