"""The application context, and presentation contexts that a gate refuses while others go on.

pynetdicom negotiates by what the application entity supports. What a gate refuses is settled
after that, when the answer is about to leave: the context gets the result 1, user-rejection
(PS3.8 Table 9-18), whatever it would have been.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from pynetdicom.acse import ACSE
from pynetdicom.association import Association

from dicom_secure_node.errors import AssociationRefused

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 A.2.1
USER_REJECTION = 0x01  # PS3.8 Table 9-18


class GatedACSE(ACSE):
    """`ACSE` that rejects the presentation contexts of `refused` abstract syntaxes.

    Attributes
    ----------
    refused : collection of str
        UIDs.
    """

    refused: Collection[str] = ()

    def send_accept(self) -> None:
        """Send the A-ASSOCIATE-AC, with refused contexts rejected."""
        if self.refused:
            self._reject_refused()
        super().send_accept()

    def _reject_refused(self) -> None:
        assoc = self.assoc
        contexts = [*assoc._accepted_cx.values(), *assoc._rejected_cx]
        for context in contexts:
            if context.abstract_syntax in self.refused:
                context.result = USER_REJECTION
        assoc._accepted_cx = {cast(int, cx.context_id): cx for cx in contexts if not cx.result}
        assoc._rejected_cx = [cx for cx in contexts if cx.result]
        for uid, role in self.acceptor.role_selection.items():
            if uid in self.refused:
                self.acceptor.remove_negotiation_item(role)


def check_application_context(assoc: Association) -> None:
    """Refuse any application context but DICOM's one; pynetdicom takes what comes.

    Raises
    ------
    AssociationRefused
        application-context-name-not-supported (PS3.8 Table 9-21).
    """
    name = str(cast(Any, assoc.requestor.primitive).application_context_name or "")
    if name != APPLICATION_CONTEXT:
        reason = f"application context {name[:64]!r}, wanted {APPLICATION_CONTEXT}"
        raise AssociationRefused(reason, result=1, source=1, diagnostic=2)
