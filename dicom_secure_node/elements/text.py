"""Text values as Python strings, for an index or a message to people (PS3.5 6.1, PS3.3 C.12.1.1.2).

Never raises: what cannot be decoded is shown with replacement characters. The received bytes
stay what they are, in the file.
"""

from __future__ import annotations

import re

# PS3.3 Tables C.12-2 to C.12-5: Defined Term -> Python codec, as initial (G0/G1) repertoire.
_CODECS = {
    "": "latin-1",  # ASCII by the standard; some products forget to say Latin-1
    "ISO_IR 6": "latin-1",
    "ISO_IR 100": "latin-1",
    "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4",
    "ISO_IR 144": "iso8859-5",
    "ISO_IR 127": "iso8859-6",
    "ISO_IR 126": "iso8859-7",
    "ISO_IR 138": "iso8859-8",
    "ISO_IR 148": "iso8859-9",
    "ISO_IR 203": "iso8859-15",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 166": "tis-620",
    "ISO_IR 192": "utf-8",
    "GB18030": "gb18030",
    "GBK": "gbk",
}

# Escape sequences of the same tables -> codec, and whether the codec itself wants to see them.
_ESCAPES = {
    b"\x1b(B": ("ascii", False),
    b"\x1b-A": ("latin-1", False),
    b"\x1b-B": ("iso8859-2", False),
    b"\x1b-C": ("iso8859-3", False),
    b"\x1b-D": ("iso8859-4", False),
    b"\x1b-L": ("iso8859-5", False),
    b"\x1b-G": ("iso8859-6", False),
    b"\x1b-F": ("iso8859-7", False),
    b"\x1b-H": ("iso8859-8", False),
    b"\x1b-M": ("iso8859-9", False),
    b"\x1b-b": ("iso8859-15", False),
    b"\x1b-T": ("tis-620", False),
    b"\x1b(J": ("shift_jis", False),
    b"\x1b)I": ("shift_jis", False),
    b"\x1b$B": ("iso2022_jp_2", True),
    b"\x1b$(D": ("iso2022_jp_2", True),
    b"\x1b$)C": ("euc_kr", False),
    b"\x1b$)A": ("gb2312", False),
}
_ESCAPE = re.compile(b"(" + b"|".join(re.escape(e) for e in sorted(_ESCAPES, key=len)[::-1]) + b")")


def decode_text(value: bytes, character_set: bytes = b"") -> str:
    """Return a text value without its padding.

    Parameters
    ----------
    value : bytes
        As encoded.
    character_set : bytes
        The value of (0008,0005) Specific Character Set.
    """
    if value.isascii() and b"\x1b" not in value:  # the same in every repertoire
        return value.decode("ascii").strip("\0 ")
    terms = character_set.decode("ascii", "replace").split("\\")
    initial = _CODECS.get(terms[0].strip("\0 ").replace("ISO 2022 IR", "ISO_IR"), "latin-1")
    if b"\x1b" not in value or initial in ("utf-8", "gb18030", "gbk"):
        return value.decode(initial, "replace").strip("\0 ")
    parts = _ESCAPE.split(value)
    text = parts[0].decode(initial, "replace")
    for escape, part in zip(parts[1::2], parts[2::2], strict=True):
        codec, wants_escape = _ESCAPES[escape]
        text += (escape + part if wants_escape else part).decode(codec, "replace")
    return text.strip("\0 ")
