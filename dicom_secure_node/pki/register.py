"""The local authority's memory: every certificate it issued, and which it took back."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.pki.files import write_file


@dataclass(frozen=True)
class Issued:
    """One issued certificate.

    Attributes
    ----------
    name : str
        Stem of its files; several certificates of one name follow each other by renewal.
    serial : int
        Unique below this authority.
    subject : str
        RFC 4514.
    not_after : datetime.datetime
        Last moment of validity, UTC.
    revoked : datetime.datetime, optional
        When it was taken back, UTC; None while it stands.
    """

    name: str
    serial: int
    subject: str
    not_after: datetime.datetime
    revoked: datetime.datetime | None = None


def read_register(path: Path) -> tuple[Issued, ...]:
    """Return the certificates of the register at `path`, oldest first.

    Raises
    ------
    ConfigurationError
        The file is missing or not what `write_register` writes: without it nobody knows what
        to put on a CRL, so it is not made anew in silence.
    """
    try:
        rows = json.loads(path.read_bytes())["issued"]
        return tuple(_issued(row) for row in rows)
    except OSError as exc:
        raise ConfigurationError("found no register of issued certificates", str(path)) from exc
    except (ValueError, KeyError, TypeError) as exc:
        message = "found something else, wanted the authority's register of certificates"
        raise ConfigurationError(message, str(path)) from exc


def write_register(path: Path, issued: Sequence[Issued]) -> None:
    """Replace the register at `path`, durably. Raises `OSError`."""
    rows = [
        {
            "name": one.name,
            "serial": f"{one.serial:x}",
            "subject": one.subject,
            "not_after": one.not_after.isoformat(),
            "revoked": one.revoked and one.revoked.isoformat(),
        }
        for one in issued
    ]
    write_file(path, json.dumps({"issued": rows}, indent=1).encode() + b"\n", 0o644)


def _issued(row: dict[str, Any]) -> Issued:
    revoked = row["revoked"]
    return Issued(
        name=row["name"],
        serial=int(row["serial"], 16),
        subject=row["subject"],
        not_after=datetime.datetime.fromisoformat(row["not_after"]),
        revoked=None if revoked is None else datetime.datetime.fromisoformat(revoked),
    )
