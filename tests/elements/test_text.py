"""Text in the character sets of the standard, for the index."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.elements.text import decode_text

# Name: value, (0008,0005), text. Those of PS3.5 are its own examples, Annexes H to K.
CASES = {
    "ASCII": (b"Doe^Jane ", b"", "Doe^Jane"),
    "padded with NUL": (b"1.2.3\0", b"", "1.2.3"),
    "Latin-1": ("Äneas^Rüdiger".encode("latin-1"), b"ISO_IR 100", "Äneas^Rüdiger"),
    "Latin-1 without saying so": ("Müller".encode("latin-1"), b"", "Müller"),
    "Latin-1, padded term": ("Müller".encode("latin-1"), b"ISO_IR 100 ", "Müller"),
    "Cyrillic": ("Люкceмбypг".encode("iso8859-5"), b"ISO_IR 144", "Люкceмбypг"),
    "Greek": ("Διονυσιος".encode("iso8859-7"), b"ISO_IR 126", "Διονυσιος"),
    "Thai": ("นามสกุล".encode("tis-620"), b"ISO_IR 166", "นามสกุล"),
    "UTF-8": ("Wang^XiaoDong=王^小東".encode(), b"ISO_IR 192", "Wang^XiaoDong=王^小東"),
    "GB18030": ("Wang=王^小东".encode("gb18030"), b"GB18030", "Wang=王^小东"),
    "PS3.5 H.3.1": (
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        b"\\ISO 2022 IR 87",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    "PS3.5 H.3.2": (
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J="
        b"\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    "PS3.5 I.2": (
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7="
        b"\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        b"\\ISO 2022 IR 149",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    "an unknown term": (b"Doe", b"NO SUCH", "Doe"),
    "bytes that are no UTF-8": (b"M\xfcller", b"ISO_IR 192", "M\ufffdller"),
}


@pytest.mark.parametrize(("value", "terms", "text"), CASES.values(), ids=CASES)
def test_decode(value: bytes, terms: bytes, text: str) -> None:
    assert decode_text(value, terms) == text


@given(st.binary(max_size=40), st.sampled_from([case[1] for case in CASES.values()]) | st.binary())
def test_nothing_raises(value: bytes, terms: bytes) -> None:
    assert isinstance(decode_text(value, terms), str)
    decode_text(b"\x1b$B" + value + b"\x1b$)C", terms)
