"""What the trail stores is read back octet for octet, by the short way and by the long one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.audit.stored import Stored, record
from dicom_secure_node.durable.segments import Entry, encode, number

TIME = "2026-11-22T09:31:03.302Z"


def entry(xml: str) -> Entry:
    """Return the record as the journal would have it."""
    return Entry(41, number([encode(record(TIME, 85, xml))], 41).removesuffix(b"\n"))


TEXTS = {
    "quotation marks": '<a b="c" d="e"/>',
    "none": "<a/>",
    "empty": "",
    "a backslash": "<a b='\\'/>",
    "a backslash before a quotation mark": '<a b=\\"c"/>',
    "two, and a quotation mark at the end": '<a>\\\\"',
    "a line feed": '<a b="c">\n</a>',
    "what looks like a further key": '<a>", "xml": "<b/>',
    "not ASCII": '<a b="M\u00fcller \U0001f600"/>',
}


@pytest.mark.parametrize("xml", TEXTS.values(), ids=TEXTS)
def test_read_back(xml: str) -> None:
    assert Stored.of(entry(xml)) == Stored(85, xml.encode())


@given(st.text(st.sampled_from('"\\\n<a\u00fc,: ')))
def test_read_back_whatever_it_is(xml: str) -> None:
    assert Stored.of(entry(xml)) == Stored(85, xml.encode())


OTHERS = {
    "of another order": {"seq": 41, "pri": 84, "xml": '<a b="c"/>', "time": TIME},
    "with a further key behind": {
        "seq": 41,
        "time": TIME,
        "pri": 84,
        "xml": '<a b="c"/>',
        "more": '"',
    },
}


@pytest.mark.parametrize("facts", OTHERS.values(), ids=OTHERS)
def test_records_of_another_shape(facts: dict[str, object]) -> None:
    line = json.dumps(facts).encode()
    assert Stored.of(Entry(41, line)) == Stored(84, b'<a b="c"/>')


DAMAGED = {
    "no UTF-8": b'{"seq": 41, "time": "T", "pri": 85, "xml": "<a>\xff"}',
    "broken off": b'{"seq": 41, "time": "T", "pri": 85, "xml": "<a>}',
    "an escape that is none": b'{"seq": 41, "time": "T", "pri": 85, "xml": "\\q"}',
    "no XML": b'{"seq": 41, "time": "T", "pri": 85}',
    "XML of another type": b'{"seq": 41, "time": "T", "pri": 85, "xml": 3}',
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_damaged(line: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        Stored.of(Entry(41, line))
