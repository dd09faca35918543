"""What is asked about a certification path, and what was found: plain data for `paths`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Purpose = Literal["signature", "timestamp"]
Revocation = Literal["good", "revoked", "unknown", "not checked"]


@dataclass(frozen=True)
class Question:
    """One certificate at one moment.

    Attributes
    ----------
    leaf : bytes
        DER.
    others : tuple of bytes
        DER of what came along with it. Nothing in them is trusted.
    at : datetime
        UTC, whole seconds.
    purpose : {"signature", "timestamp"}
        What the key was used for.
    proven : bool
        Somebody else vouches for `at`; else it is what the holder of the key says.
    now : datetime
        The present, UTC.
    """

    leaf: bytes
    others: tuple[bytes, ...]
    at: datetime
    purpose: Purpose
    proven: bool
    now: datetime


@dataclass(frozen=True)
class Request:
    """Something about revocation to be fetched: a list, or with a body an OCSP answer."""

    url: str
    body: bytes = b""


@dataclass(frozen=True)
class Finding:
    """What became of a question.

    Attributes
    ----------
    reason : str
        Empty when the path is trusted.
    chain : tuple of bytes
        SHA-256 of each certificate, leaf to anchor.
    revocation, revoked
        As in `paths.PathVerdict`.
    borders : frozenset of datetime
        Moments at which the answer may change, besides those of certificates and lists at hand.
    wanted : tuple of Request
        Nothing is found yet: this is to be fetched first.
    """

    reason: str
    chain: tuple[bytes, ...] = ()
    revocation: Revocation = "not checked"
    revoked: datetime | None = None
    borders: frozenset[datetime] = frozenset()
    wanted: tuple[Request, ...] = ()
