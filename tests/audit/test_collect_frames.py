"""A stream cut into messages: in step whatever comes, or closed with a reason (RFC 5425 4.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.audit.collecting.frames import ABSURD, Frames

LIMIT = 40
A, B = b"<85>1 a", b"<86>1 \xef\xbb\xbf<x>\n</x>"


def counted(*messages: bytes) -> bytes:
    return b"".join(b"%d %b" % (len(one), one) for one in messages)


# sentence: octets, messages, refused as too long, has it lost step, is something begun
CASES = {
    "nothing": (b"", [], 0, False, False),
    "counted": (counted(A), [A], 0, False, False),
    "several counted in one piece": (counted(A, B, A), [A, B, A], 0, False, False),
    "a line feed within a counted message": (counted(b"<1>\n"), [b"<1>\n"], 0, False, False),
    "a line": (A + b"\n", [A], 0, False, False),
    "lines that end with CR LF": (A + b"\r\n" + A + b"\r\n", [A, A], 0, False, False),
    "a line not ended yet": (A, [], 0, False, True),
    "both forms mixed": (counted(B) + A + b"\n" + counted(A), [B, A, A], 0, False, False),
    "line ends after counted messages": (
        b"7 %b\n7 %b\r\n\n7 %b" % (A, A, A),
        [A, A, A],
        0,
        False,
        False,
    ),
    "of the longest length": (counted(b"<" * LIMIT), [b"<" * LIMIT], 0, False, False),
    "a line of the longest length": (
        b"<" * LIMIT + b"\r\n" + A + b"\n",
        [b"<" * LIMIT, A],
        0,
        False,
        False,
    ),
    "too long, then good ones": (counted(b"x" * (LIMIT + 1), A), [A], 1, False, False),
    "far too long, then a good one": (counted(b"9 <" * 500, A), [A], 1, False, False),
    "a line too long, then good ones": (
        b"<" * (LIMIT + 1) + b"\n" + counted(A),
        [A],
        1,
        False,
        False,
    ),
    "a line far too long": (b"<" * 500, [], 1, False, True),
    "two that are too long": (counted(b"x" * 50, A, b"y" * 60), [A], 2, False, False),
    "a length cut off": (b"12", [], 0, False, True),
    "a message cut off": (counted(A)[:-1], [], 0, False, True),
    "a length of nothing": (b"0 ", [], 0, True, False),
    "a length with a leading zero": (b"07 <85>1 a", [], 0, True, False),
    "a negative length": (b"-7 <85>1 a", [], 0, True, False),
    "a length without blank": (b"7<85>1 a", [], 0, True, False),
    "a length with two blanks": (b"8  <85>1 a", [b" <85>1 a"], 0, False, False),
    "a length of ten digits": (b"1000000007 <85>1 a", [], 0, True, False),
    "a length nobody means": (b"%d <" % (ABSURD + 1), [], 0, True, False),
    "garbage between frames": (counted(A) + b"\x16\x03\x01" + counted(A), [A], 0, True, False),
    "a blank between frames": (counted(A) + b" " + counted(A), [A], 0, True, False),
    "octets counted, not characters": (
        b"5 <1>\xc3\xbc" + counted(A),
        [b"<1>\xc3\xbc", A],
        0,
        False,
        False,
    ),
    "characters counted for octets": (b"4 <1>\xc3\xbc" + counted(A), [b"<1>\xc3"], 0, True, False),
    "what a browser sends": (b"GET / HTTP/1.1\r\n\r\n", [], 0, True, False),
}


@pytest.mark.parametrize(
    ("octets", "want", "oversized", "broken", "partial"), CASES.values(), ids=CASES
)
@pytest.mark.parametrize("piece", [1, 2, 7, 10_000], ids="in pieces of {}".format)
def test_what_comes_out(
    octets: bytes, want: list[bytes], oversized: int, broken: bool, partial: bool, piece: int
) -> None:
    frames = Frames(LIMIT)
    found: list[bytes] = []
    for place in range(0, len(octets), piece):
        found += frames.feed(octets[place : place + piece])
    assert found == want
    assert frames.oversized == oversized
    assert bool(frames.broken) == broken
    if not broken:
        assert frames.partial == partial


def test_a_lost_step_says_what_was_found_there() -> None:
    frames = Frames(LIMIT)
    assert frames.feed(counted(A) + b"no length\n") == [A]
    assert frames.broken == "found b'no length\\n', wanted a length and a blank, or <"
    assert frames.feed(counted(A)) == [], "nothing more"


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=60), st.booleans()), max_size=12),
    st.lists(st.integers(1, 80), max_size=30),
)
def test_any_messages_in_any_pieces(messages: list[tuple[bytes, bool]], pieces: list[int]) -> None:
    stream, wanted = b"", []
    for body, as_line in messages:
        if as_line:
            line = b"<" + body.replace(b"\n", b"").rstrip(b"\r")
            stream += line + b"\n"
            wanted.append(line)
        else:
            stream += counted(body)
            wanted.append(body)
    frames, found = Frames(LIMIT), []
    for size in pieces:
        found += frames.feed(stream[:size])
        stream = stream[size:]
    found += frames.feed(stream)
    assert found == [one for one in wanted if len(one) <= LIMIT]
    assert frames.oversized == sum(len(one) > LIMIT for one in wanted)
    assert (frames.broken, frames.partial) == ("", False)


@given(st.binary(max_size=400), st.lists(st.integers(1, 40), max_size=20))
def test_any_octets_in_any_pieces_are_the_same(octets: bytes, pieces: list[int]) -> None:
    whole, cut = Frames(LIMIT), Frames(LIMIT)
    wanted = whole.feed(octets)
    found = []
    for size in pieces:
        found += cut.feed(octets[:size])
        octets = octets[size:]
    found += cut.feed(octets)
    assert found == wanted
    assert cut.oversized == whole.oversized
    assert bool(cut.broken) == bool(whole.broken)
