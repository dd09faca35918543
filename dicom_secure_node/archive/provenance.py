"""Where an instance came from: kept in the file's header, so that it outlives the index."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from dicom_secure_node.elements.part10 import (
    MEDIA_STORAGE_SOP_CLASS,
    MEDIA_STORAGE_SOP_INSTANCE,
    PRIVATE_CREATOR,
    PRIVATE_INFORMATION,
    TRANSFER_SYNTAX,
    FileMeta,
    Header,
    encode_header,
)
from dicom_secure_node.errors import InvalidDataSet

IMPLEMENTATION_CLASS = "2.25.306286197690180548500607529091109687547"
IMPLEMENTATION_VERSION = "DSN_ARCHIVE_1"
CREATOR = "2.25.30397931050185666629352366986276726104"
"""Private Information Creator UID (0002,0100): the JSON object in (0002,0102) is ours."""

_BLOCK = 512  # bytes; the private information is padded to a multiple, its size tells little
_NO_DIGEST = "0" * 64
_TIGHT = (",", ":")

# PS3.5 9.1, but with leading zeros in components: field products send them.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)


def is_uid(text: str) -> bool:
    """Tell whether `text` is a UID (PS3.5 9.1; leading zeros are let pass)."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


@dataclass(frozen=True)
class Provenance:
    """How one instance came in.

    Attributes
    ----------
    sop_class, sop_instance : str
        Affected UIDs of the C-STORE-RQ, without padding.
    transfer_syntax : str
        UID of the presentation context.
    calling_ae, called_ae : str
    peer_address : str
    peer_subject : str or None
        Subject of the peer's certificate, RFC 4514.
    tls : mapping or None
        ``version``, ``suite``, ``group``, ``fingerprint``; None on a plain connection.
    identity : str or None
        The user, as the identity gate proved it.
    association_id, listener : str
    received_at : datetime
        UTC.
    """

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    calling_ae: str = ""
    called_ae: str = ""
    peer_address: str = ""
    peer_subject: str | None = None
    tls: Mapping[str, str | None] | None = None
    identity: str | None = None
    association_id: str = ""
    listener: str = ""
    received_at: datetime = dataclasses.field(default_factory=lambda: datetime.now(UTC))

    def header(self) -> bytes:
        """Return the file header, with room for the digest of the data set: see `complete`."""
        own = {
            "digest": _NO_DIGEST,
            "sop_class": self.sop_class,
            "sop_instance": self.sop_instance,
            "transfer_syntax": self.transfer_syntax,
            "received_at": self.received_at.astimezone(UTC).isoformat(),
        }
        shared = _shared(
            (
                ("calling_ae", self.calling_ae),
                ("called_ae", self.called_ae),
                ("peer_address", self.peer_address),
                ("peer_subject", self.peer_subject),
                ("identity", self.identity),
                ("association_id", self.association_id),
                ("listener", self.listener),
            ),
            None if self.tls is None else tuple(self.tls.items()),
        )
        block = f"{json.dumps(own, separators=_TIGHT)[:-1]},{shared[1:]}".encode("ascii")
        block += b" " * (-len(block) % _BLOCK)
        return encode_header(
            FileMeta(
                sop_class=self.sop_class,
                sop_instance=self.sop_instance,
                transfer_syntax=self.transfer_syntax,
                implementation_class=IMPLEMENTATION_CLASS,
                implementation_version=IMPLEMENTATION_VERSION,
                source_ae=self.calling_ae,
                sending_ae=self.calling_ae,
                receiving_ae=self.called_ae,
                private_creator=CREATOR,
                private_information=block,
            )
        )


@lru_cache(maxsize=64)
def _shared(
    facts: tuple[tuple[str, str | None], ...], tls: tuple[tuple[str, str | None], ...] | None
) -> str:
    """Return what all instances of an association say, as JSON."""
    return json.dumps({**dict(facts), "tls": None if tls is None else dict(tls)}, separators=_TIGHT)


def complete(header: bytes, digest: str) -> bytes:
    """Return a header of the same size that tells the digest of the data set.

    Parameters
    ----------
    header : bytes
        From `Provenance.header`.
    digest : str
        SHA-256 of the data set as received, hex.
    """
    # Titles and UIDs stand before it, and none of them is both this long and quoted.
    return header.replace(f'"{_NO_DIGEST}"'.encode(), f'"{digest}"'.encode(), 1)


def read_provenance(header: Header) -> tuple[Provenance, str]:
    """Return what the header of an archived file tells, and the digest of its data set.

    Raises
    ------
    InvalidDataSet
        The file was not written by an archive, or its header was damaged.
    """
    if header.text(PRIVATE_CREATOR) != CREATOR:
        raise InvalidDataSet("no provenance", "a file of this archive", "(0002,0100)")
    try:
        facts: dict[str, Any] = json.loads(header.values[PRIVATE_INFORMATION])
        digest = str(facts.pop("digest"))
        facts["received_at"] = datetime.fromisoformat(facts["received_at"])
        provenance = Provenance(**facts)
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidDataSet("damaged provenance", "a file of this archive", "(0002,0102)") from exc
    said = tuple(
        header.text(tag)
        for tag in (MEDIA_STORAGE_SOP_CLASS, MEDIA_STORAGE_SOP_INSTANCE, TRANSFER_SYNTAX)
    )
    if said != (provenance.sop_class, provenance.sop_instance, provenance.transfer_syntax):
        raise InvalidDataSet("UIDs that differ", "those of the provenance", "group 0002")
    return provenance, digest
