"""What a URL asks for: a filter, a page, and back to a URL again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from urllib.parse import urlencode

from dicom_secure_node.audit.collecting.records import Filter
from dicom_secure_node.errors import InvalidInput

TEXTS = ("user", "patient", "study", "node")
TIMES = ("since", "until")
FIELDS = ("event", "outcome", *TEXTS, *TIMES, "valid")
OUTCOMES: Mapping[str, str] = MappingProxyType(
    {
        "failures": "any failure",
        "0": "0 success",
        "4": "4 minor failure",
        "8": "8 serious failure",
        "12": "12 major failure",
    }
)
VALID: Mapping[str, bool] = MappingProxyType({"yes": True, "no": False})
TEXT_LIMIT = 256  # characters
_YEARS = range(1970, 3000)
_LARGEST = 2**62  # the index counts to 2**63, and one more is asked for


@dataclass(frozen=True, slots=True)
class Question:
    """What to show.

    Attributes
    ----------
    asked : Filter
        Which records.
    words : mapping of str to str
        The same as it was typed, to fill in the form and to make links.
    before : int, optional
        Only older records: the last number of the page before.
    """

    asked: Filter
    words: Mapping[str, str]
    before: int | None = None

    def query(self, **more: object) -> str:
        """Return it as the query of a URL, ``?`` included; empty where nothing is asked for."""
        pairs = [*self.words.items(), *((name, str(value)) for name, value in more.items())]
        return f"?{urlencode(pairs)}" if pairs else ""


def understood(pairs: Iterable[tuple[str, str]]) -> Question:
    """Return what the query of a URL asks for; names we do not know are passed over.

    Raises
    ------
    InvalidInput
        A value makes no sense.
    """
    given = dict(pairs)
    words = {name: given[name].strip() for name in FIELDS if given.get(name, "").strip()}
    for name, word in words.items():
        if len(word) > TEXT_LIMIT:
            raise InvalidInput(f"{len(word)} characters", f"at most {TEXT_LIMIT}", name)
    outcome = _one_of("outcome", words, OUTCOMES)
    valid = _one_of("valid", words, VALID)
    times = {name: _moment(name, words[name]) for name in TIMES if name in words}
    asked = Filter(
        event=words.get("event", ""),
        outcome=int(outcome) if outcome.isdecimal() else None,
        failures=outcome == "failures",
        valid=VALID.get(valid),
        since=times.get("since"),
        until=times.get("until"),
        **{name: words.get(name, "") for name in TEXTS},
    )
    before = given.get("before", "")
    return Question(asked, MappingProxyType(words), number(before) if before else None)


def number(text: str) -> int:
    """Return the number of a record.

    Raises
    ------
    InvalidInput
        It is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= _LARGEST):
        raise InvalidInput(repr(text[:40]), "the number of a record")
    return int(text)


def _one_of(name: str, words: Mapping[str, str], known: Mapping[str, object]) -> str:
    word = words.get(name, "")
    if word and word not in known:
        raise InvalidInput(repr(word), f"one of {', '.join(known)}", name)
    return word


def _moment(name: str, word: str) -> datetime:
    try:
        found = datetime.fromisoformat(word)
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        if found.year not in _YEARS:  # reckoning with it must not leave the calendar
            raise ValueError(found.year)
        return found
    except (ValueError, OverflowError) as exc:
        raise InvalidInput(repr(word), "e.g. 2026-11-22T09:30", name) from exc
