# ruff: noqa: E501 - a case a line: a table to read
"""One input, many messages: files, stores, frames, logs; none lost, none run together."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.audit.splitting import Piece, split
from dicom_secure_node.audit.syslog import frame
from tests.audit.test_audit_validate import CORPUS, GOOD

LIMIT = 100_000
A, B = (GOOD[name].encode() for name in ("A.5.3.7", "A.5.3.9"))
PRETTY = (CORPUS / "good" / "A.5.3.7.xml").read_bytes()
BOM = b"\xef\xbb\xbf"
HEADER = b"<85>1 2026-11-22T10:15:30.150Z ws7 viewer 4711 DICOM+RFC3881 - "
SSHD = b"<86>1 2026-11-22T10:15:31Z ws7 sshd 99 - - Accepted publickey for ada"
LOG = b"Nov 22 10:15:30 ws7 viewer[4711]: "
DECLARED = b'<?xml version="1.0"?>\n'


def stored(xml: bytes) -> bytes:
    return json.dumps({"seq": 1, "xml": xml.decode()}).encode()


# sentence: (input, [number and octets of each message])
INPUTS = {
    "one document": (A, [(1, A)]),
    "one document over many lines": (PRETTY, [(1, PRETTY)]),
    "one document after blank lines": (b"\n\n" + A, [(3, A)]),
    "one document with a BOM": (BOM + A, [(1, BOM + A)]),
    "one document in UTF-16": (A.decode().encode("utf-16"), [(1, A.decode().encode("utf-16"))]),
    "something else": (b"hello\nworld\n", [(1, b"hello\nworld\n")]),
    "nothing": (b"", [(1, b"")]),
    "documents, a line each": (A + b"\n" + B + b"\n" + A, [(1, A + b"\n"), (2, B + b"\n"), (3, A)]),
    "documents with declarations": ((DECLARED + A + b"\n") * 2, [(1, DECLARED + A + b"\n"), (3, DECLARED + A + b"\n")]),
    "documents over many lines": (PRETTY + PRETTY, [(1, PRETTY), (1 + PRETTY.count(b"\n"), PRETTY)]),
    "a node's store": (stored(A) + b"\n\n" + stored(B) + b"\n", [(1, A), (3, B)]),
    "syslog, a line each": (HEADER + A + b"\n" + HEADER + BOM + B + b"\n", [(1, HEADER + A + b"\n"), (2, HEADER + BOM + B + b"\n")]),
    "syslog with line feeds inside": ((HEADER + BOM + PRETTY) * 2, [(1, HEADER + BOM + PRETTY), (1 + PRETTY.count(b"\n"), HEADER + BOM + PRETTY)]),
    "a collector's log without PRI": (LOG + A + b"\n" + LOG + B + b"\n", [(1, LOG + A + b"\n"), (2, LOG + B + b"\n")]),
    "frames": (frame(HEADER + A) + frame(HEADER + BOM + B), [(1, HEADER + A), (2, HEADER + BOM + B)]),
    "frames with line feeds inside": (frame(HEADER + PRETTY) * 2, [(1, HEADER + PRETTY), (2, HEADER + PRETTY)]),
    "frames and a line feed at the end": (frame(HEADER + A) + b"\n", [(1, HEADER + A)]),
}  # fmt: skip


@pytest.mark.parametrize(("octets", "want"), INPUTS.values(), ids=INPUTS)
def test_messages_of_an_input(octets: bytes, want: list[tuple[int, bytes]]) -> None:
    found = list(split(io.BytesIO(octets), LIMIT))
    assert [(one.number, one.raw) for one in found] == want
    assert not any(one.foreign or one.trouble for one in found)


@pytest.mark.parametrize("join", [b"\n", b""], ids=["lines", "frames"])
def test_other_syslog_messages_are_nobodys_error(join: bytes) -> None:
    messages = [SSHD, HEADER + A, SSHD]
    octets = b"\n".join(messages) if join else b"".join(map(frame, messages))
    found = list(split(io.BytesIO(octets), LIMIT))
    assert [one.foreign for one in found] == [True, False, True]


def test_a_header_that_promises_an_audit_message_is_judged() -> None:
    (found,) = split(io.BytesIO(HEADER), LIMIT)
    assert not found.foreign


# sentence: (input, troubles)
BROKEN = {
    "a store's line that is no JSON": (stored(A) + b"\nno json\n" + stored(B), ["", "a line that is no stored message", ""]),
    "a store's line without XML": (b'{"seq": 99}', ["a line that is no stored message"]),
    "a store's line that is a list": (stored(A) + b"\n[1]", ["", "a line that is no stored message"]),
    "a store's line, very deep": (b'{"xml":' * 10_000, ["a line that is no stored message"]),
    "a frame cut off": (frame(HEADER + A)[:-7], ["the input ends 7 octets before the frame"]),
    "a frame counted in characters": (frame(HEADER + A) + b"x" + frame(b"<85>1 "), ["", "b'x6 ' where an octet count should be"]),
    "a count of zero": (frame(HEADER + A) + b"0 <85>", ["", "b'0 ' where an octet count should be"]),
    "a count without end": (frame(HEADER + A) + b"1" * 30, ["", "b'1111111111' where an octet count should be"]),
}  # fmt: skip


@pytest.mark.parametrize(("octets", "want"), BROKEN.values(), ids=BROKEN)
def test_where_there_is_no_message_it_says_so(octets: bytes, want: list[str]) -> None:
    assert [one.trouble for one in split(io.BytesIO(octets), LIMIT)] == want


@pytest.mark.parametrize("form", ["lines", "frames", "store", "document"])
def test_a_message_beyond_the_limit_is_cut_and_the_next_is_found(form: str) -> None:
    large = A.replace(b"<AuditSource", b" " * 5000 + b"<AuditSource")
    forms = {
        "lines": (HEADER + large + b"\n" + HEADER + B, HEADER + B),
        "frames": (frame(HEADER + large) + frame(HEADER + B), HEADER + B),
        "store": (stored(large) + b"\n" + stored(B), B),
        "document": (large + b"\n" + B, B),
    }
    octets, second = forms[form]
    found = list(split(io.BytesIO(octets), 4000))
    assert [len(found[0].raw), found[1].raw] == [4001, second]


@given(st.data())
def test_splitting_never_raises(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([one for one, _ in INPUTS.values()])))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=8))
    for one in split(io.BytesIO(bytes(raw)), 5000):
        assert isinstance(one, Piece)
        assert len(one.raw) <= 5001
