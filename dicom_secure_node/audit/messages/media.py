"""Data crosses the border of the security domain (PS3.15 A.5.3.4, A.5.3.5).

One medium belongs to each of these messages, also where it is paper, film, e-mail or a place on
the network; and exactly one user, local or remote, is its requestor (A.5.3.4.1): with push the one
who sends, with pull the one who fetches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from dicom_secure_node.audit.messages.assembly import Facts, Some, build
from dicom_secure_node.audit.messages.objects import Patient, Study
from dicom_secure_node.audit.model import AuditMessage, Participant
from dicom_secure_node.audit.text import UNKNOWN
from dicom_secure_node.spec import audit as spec
from dicom_secure_node.spec.audit import Code

_MAILTO = "mailto:"
# No physical media: these need a network access point, of this type (A.5.3.4, A.5.2.4).
_ON_A_NETWORK = {spec.EMAIL: 4, spec.MEDIA_URI: 5}


@dataclass(frozen=True, slots=True)
class Medium:
    """What data is exported to or imported from.

    MediaIdentifier is always written, so that it is there where the table demands it; of e-mail
    and URI the network access point is written, too.

    Attributes
    ----------
    kind : Code
        Of CID 405, e.g. CD; or a code of another system.
    identifier : str
        A.5.2.1: preferably a URI; ``mailto:user@address``; or type and label in words.
    alternative_id : str
        Anything a machine can read: serial number, volume label (A.5.2.2).
    address : str
        The node behind it, if that is not the one in `identifier`.
    """

    kind: Code
    identifier: str
    alternative_id: str = ""
    address: str = ""

    def __post_init__(self) -> None:
        if self.kind.system == "DCM" and self.kind not in spec.group("CID 405").values():
            raise ValueError(f"medium {self.kind.meaning!r}, wanted a code of CID 405")

    def participant(self) -> Participant:
        """Return it as a participant of a message; it is never the requestor."""
        address, kind = self.address, None
        if not address and self.kind in _ON_A_NETWORK:
            address = self.identifier.removeprefix(_MAILTO).strip() or UNKNOWN
            kind = _ON_A_NETWORK[self.kind]
        return Participant(
            self.identifier,
            alternative_id=self.alternative_id,
            address=address,
            address_type=kind,
            media=self.kind,
        )


def data_export(
    local: Some[Participant],
    medium: Medium,
    patients: Some[Patient],
    *,
    studies: Some[Study] = (),
    remote: Some[Participant] = (),
    **facts: Unpack[Facts],
) -> AuditMessage:
    """Return Data Export (A.5.3.4).

    Parameters
    ----------
    local : Participant or two
        The person, the process, or both, that export.
    remote : Participant or several
        Who gets it, where that is known.
    """
    who = {"remote": remote, "local": local, "media": medium.participant()}
    return build("data_export", who, {"study": studies, "patient": patients}, **facts)


def data_import(
    importers: Some[Participant],
    medium: Medium,
    patients: Some[Patient],
    *,
    studies: Some[Study] = (),
    sources: Some[Participant] = (),
    **facts: Unpack[Facts],
) -> AuditMessage:
    """Return Data Import (A.5.3.5).

    Parameters
    ----------
    importers : Participant or several
        The persons and processes that import.
    sources : Participant or several
        Who sent it, where that is known.
    """
    who = {"importer": importers, "media": medium.participant(), "source": sources}
    return build("data_import", who, {"study": studies, "patient": patients}, **facts)
