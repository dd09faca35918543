"""The verdict on one message: is it valid, and by which terms shall one find it?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dicom_secure_node.audit.collecting.records import Arrival
from dicom_secure_node.audit.reading import Summary, summarise
from dicom_secure_node.audit.text import cut
from dicom_secure_node.audit.validate import validate

EDITION = "1"
"""Of the verdicts. Raised when a message that is kept would now be judged otherwise: the index is
then made again from the log."""

KINDS = ("user", "patient", "study", "node")
RULES_LIMIT = 32
TERM_LIMIT = 256  # characters


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the index keeps of one message.

    Attributes
    ----------
    event : str
        Code value of EventID; empty where it cannot be read.
    terms : frozenset of (str, str)
        Kind (one of `KINDS`) and folded text.
    """

    event: str
    outcome: int | None
    valid: bool
    rules: tuple[str, ...]
    terms: frozenset[tuple[str, str]]


def judge(arrival: Arrival) -> Verdict:
    """Judge a message: strictly for the verdict, leniently for the terms. Never raises."""
    summary = summarise(arrival.raw)
    problems = validate(arrival.raw).problems
    rules = tuple(dict.fromkeys(cut(problem.rule, 128) for problem in problems))[:RULES_LIMIT]
    terms = frozenset(
        (kind, folded(text)) for kind, text in _terms(summary, arrival) if folded(text)
    )
    event = summary.event.value if summary.event is not None else ""
    return Verdict(event, summary.outcome, not problems, rules, terms)


def folded(text: str) -> str:
    """Return a term as it is compared: without case, without NUL, bounded."""
    # PostgreSQL's texts have no NUL; XML has none either.
    return cut(text, TERM_LIMIT).casefold().replace("\0", "\ufffd")


def _terms(summary: Summary, arrival: Arrival) -> Iterator[tuple[str, str]]:
    for user in summary.users:
        for text in (user.user_id, user.alternative_id, user.name, *user.ae_titles):
            yield "user", text
    for patient in summary.patients:
        yield "patient", patient.patient_id
        yield "patient", patient.name
    for text in (*summary.studies, *summary.accessions):
        yield "study", text
    peer = arrival.peer.rpartition(":")[0].strip("[]")
    for text in (summary.source, *summary.nodes, arrival.sender, peer):
        yield "node", text
