"""What the repository keeps of a message, what can be asked for, and what can be found wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from dicom_secure_node.audit.reading import Summary, summarise

TLS = "tls"
UDP = "udp"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message on its way into the log.

    Attributes
    ----------
    raw : bytes
        The SYSLOG-MSG, every octet as it came, without the octet count.
    received_at : datetime
        By our own clock, aware.
    peer : str
        Address and port the octets came from; a relay is not the origin.
    transport : str
        ``tls`` or ``udp``.
    sender : str
        Subject of the certificate the sender showed; empty where it showed none.
    """

    raw: bytes = field(repr=False)
    received_at: datetime
    peer: str
    transport: str
    sender: str = ""


@dataclass(frozen=True)
class Record:
    """A message that is kept.

    Attributes
    ----------
    sequence : int
        Its number in the log: rises by the order of writing, never used twice, with gaps where
        the log has a note of its own.
    raw, received_at, peer, transport, sender
        As in `Arrival`; read from the log.
    chain : str
        The hash that ends with this record, hexadecimal.
    valid : bool
        Whether `audit.validate` found nothing wrong.
    rules : tuple of str
        The rules it breaks, each once, in the order found; at most 32.
    intact : bool
        Whether the log has at this place what the index expects. If not, what could not be read
        is empty, and it is time for `RecordStore.verify`.
    """

    sequence: int
    raw: bytes = field(repr=False)
    received_at: datetime
    peer: str
    transport: str
    sender: str
    chain: str
    valid: bool
    rules: tuple[str, ...] = ()
    intact: bool = True

    @cached_property
    def summary(self) -> Summary:
        """Return what the message says: event, users, patients and so on."""
        return summarise(self.raw)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records to return; every condition given has to hold.

    Texts are compared without regard to case, as a whole, or up to a ``*`` at their end.

    Attributes
    ----------
    event : str
        Code value of EventID, e.g. ``110114``.
    outcome : int, optional
        EventOutcomeIndicator: 0, 4, 8 or 12.
    failures : bool
        Only outcomes other than 0.
    user : str
        UserID, AlternativeUserID, UserName or AE title of any participant.
    patient : str
        ID or name.
    study : str
        Study Instance UID or accession number.
    node : str
        AuditSourceID, address or AE title of a participant, the address the message came from,
        or the sender's certificate subject.
    since, until : datetime, optional
        By our clock, aware: from `since` on, before `until`.
    valid : bool, optional
        Only valid messages, or only others.
    """

    event: str = ""
    outcome: int | None = None
    failures: bool = False
    user: str = ""
    patient: str = ""
    study: str = ""
    node: str = ""
    since: datetime | None = None
    until: datetime | None = None
    valid: bool | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """How many messages there were in a span of time, for a plot."""

    start: datetime
    total: int
    failures: int


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the log at a moment: everything before it hangs on this hash."""

    sequence: int
    chain: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.chain}"


@dataclass(frozen=True, slots=True)
class Lost:
    """What an index knows better than the log.

    Attributes
    ----------
    agreed : Head
        The last message both have; 0 where there is none.
    known : Head
        The head of the index.
    """

    agreed: Head
    known: Head


@dataclass(frozen=True, slots=True)
class Status:
    """How far log and index have come.

    Attributes
    ----------
    first, last : int
        Of the log; `last` is `first` - 1 when it is empty.
    indexed : int
        The last number `query` knows of; the rest is being judged.
    """

    first: int
    last: int
    indexed: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with the log, or worth knowing.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    sequence : int
        Of the record concerned, or the first of several.
    last : int
        Of the last of several; the same as `sequence` for one.
    text : str
        In words, with the place.
    """

    kind: str
    sequence: int
    last: int
    text: str

    @property
    def breach(self) -> bool:
        """Return False for what is only worth knowing: deletions by the retention policy."""
        return self.kind != "deleted"


KINDS: Mapping[str, str] = {
    "edited": "a record is not what its hash says",
    "damaged": "a line that is no record",
    "missing": "records are not there, and no deletion is recorded",
    "moved": "a record does not stand where its number says",
    "truncated": "records at the end are not there",
    "replaced": "the log is not the one a head was taken of",
    "unfinished": "the last line has no end",
    "lost": "the collector noted at a start that records were missing",
    "index": "the index does not say what the log says",
    "deleted": "records were deleted by the retention policy: no breach, if that is the policy",
}
