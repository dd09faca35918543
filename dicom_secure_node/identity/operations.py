"""What access rules may name: operations, groups of them, and SOP classes.

======== ==============
word     operations
======== ==============
echo     C-ECHO
store    C-STORE
query    C-FIND
retrieve C-GET, C-MOVE
======== ==============
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from types import MappingProxyType

# The whole registry of PS3.6 Table A-1; pydicom's public names leave out all but storage.
from pydicom._uid_dict import UID_dictionary

OPERATIONS = (
    "C-ECHO",
    "C-STORE",
    "C-FIND",
    "C-GET",
    "C-MOVE",
    "N-EVENT-REPORT",
    "N-GET",
    "N-SET",
    "N-ACTION",
    "N-CREATE",
    "N-DELETE",
)
WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "echo": ("C-ECHO",),
        "store": ("C-STORE",),
        "query": ("C-FIND",),
        "retrieve": ("C-GET", "C-MOVE"),
    }
)

_UID_PATTERN = re.compile(r"[0-9.*?\[\]!-]+")
_COMPOSITE = "1.2.840.10008.5.1.4."  # below it, "Storage" in a keyword means C-STORE
_UPS = "1.2.840.10008.5.1.4.34.6."  # SOP classes of one kind of instance (PS3.4 CC.3.1)
_ENDINGS = (
    ("Find", "C-FIND"),
    ("RelevantPatientInformationQuery", "C-FIND"),
    ("Move", "C-MOVE"),
    ("Get", "C-GET"),
)
_KEYWORDS = MappingProxyType(
    {row[4]: uid for uid, row in UID_dictionary.items() if "SOP Class" in row[1] and row[4]}
)


def operations_named(word: str) -> tuple[str, ...]:
    """Return the operations `word` stands for: one of `OPERATIONS`, or a group of them.

    Raises
    ------
    ValueError
        It is neither.
    """
    if word in OPERATIONS:
        return (word,)
    if word in WORDS:
        return WORDS[word]
    raise ValueError(
        f"found operation {word!r}, wanted one of {', '.join(OPERATIONS)}, {', '.join(WORDS)}"
    )


def sop_class_patterns(text: str) -> tuple[str, ...]:
    """Return the UIDs, or the pattern for them, that `text` stands for.

    Parameters
    ----------
    text : str
        A UID, a pattern for UIDs, a keyword (``CTImageStorage``) or a pattern for keywords
        (``*MRImageStorage``): those of the SOP classes pydicom knows.

    Raises
    ------
    ValueError
        It is no UID, and no SOP class has such a keyword.
    """
    if _UID_PATTERN.fullmatch(text):
        return (text,)
    found = tuple(uid for keyword, uid in _KEYWORDS.items() if fnmatchcase(keyword, text))
    if not found:
        near = difflib.get_close_matches(text, _KEYWORDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"found {text!r}, wanted the UID or keyword of an SOP class, or a pattern{hint}"
        )
    return found


@lru_cache(maxsize=1024)
def operations_of(sop_class: str) -> frozenset[str]:
    """Return the operations a request about `sop_class` may be.

    One where there is but one, none for a Meta SOP class (requests name its members), and all
    where we cannot tell: private SOP classes, and those with services of several kinds.

    References
    ----------
    PS3.4 Annexes A, B, C, H.3.2, K, Q, U, X, Y, Z
    """
    row = UID_dictionary.get(sop_class)
    keyword = row[4] if row else ""
    if row and row[1] == "Meta SOP Class":
        return frozenset()
    if keyword == "Verification":
        return frozenset({"C-ECHO"})
    if "Storage" in keyword and sop_class.startswith(_COMPOSITE):
        return frozenset({"C-STORE"})
    for ending, operation in _ENDINGS:
        if keyword.endswith(ending):
            return frozenset({operation})
    return frozenset(OPERATIONS)


def carries_several(abstract_syntax: str) -> bool:
    """Return whether requests of that presentation context may name another SOP class.

    References
    ----------
    PS3.4 H.3.2, CC.3.1
    """
    return abstract_syntax.startswith(_UPS) or not operations_of(abstract_syntax)


def keyword_of(sop_class: str) -> str:
    """Return the keyword of an SOP class, empty where it has none."""
    row = UID_dictionary.get(sop_class)
    return row[4] if row else ""
