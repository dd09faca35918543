"""Presentation contexts that a gate refuses while the association goes on.

pynetdicom negotiates by what the application entity supports. What a gate refuses is settled
after that, when the answer is about to leave: the context gets the result 1, user-rejection
(PS3.8 Table 9-18), whatever it would have been.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from pynetdicom.acse import ACSE

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
