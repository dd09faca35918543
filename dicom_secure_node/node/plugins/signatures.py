"""The signature gate: digital signatures are verified while an instance comes in (PS3.15 Annex C).

The bytes go through a `SignatureStream` on their way to the disk, so what the gate decides at the
end costs no second read. What was found goes to the archive's index whatever was decided.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Literal, cast

from dicom_secure_node.errors import SignatureRejected
from dicom_secure_node.node.context import Sink, StoreContext, Suspicion
from dicom_secure_node.node.plugin import Plugin
from dicom_secure_node.signatures.policy import SignaturePolicy
from dicom_secure_node.signatures.streaming import SignatureStream
from dicom_secure_node.signatures.verify import Verifier

logger = logging.getLogger(__name__)

Consequence = Literal["reject", "quarantine", "mark"]

FINDINGS = "signatures"  # the name of a report in the index

_MOST_REASONS = 3  # in the log and in audit; the index has them all


class SignaturePlugin(Plugin):
    """Verifies the digital signatures of each instance, and acts on a policy.

    Parameters
    ----------
    verifier : callable
        Returns the `Verifier` in force; asked at each instance, for trust may change.
    policy : SignaturePolicy
    overrides : mapping of str to SignaturePolicy
        Another policy for single calling AE titles. An AE title is no proof of anything: bind it
        to a certificate before making an exception for it.
    consequence : str
        For an instance that does not satisfy the policy: ``reject`` it; ``quarantine``: keep it
        apart; ``mark``: keep it, with the report in the index. The last two are audited as well.
    """

    def __init__(
        self,
        verifier: Callable[[], Verifier],
        policy: SignaturePolicy,
        overrides: Mapping[str, SignaturePolicy] | None = None,
        consequence: Consequence = "reject",
    ) -> None:
        self._verifier = verifier
        self._policy = policy
        self._overrides = dict(overrides or {})
        self._consequence = consequence

    def policy_for(self, calling_ae: str) -> SignaturePolicy:
        """Return the policy in force for `calling_ae`."""
        return self._overrides.get(calling_ae.strip(" "), self._policy)

    def on_store_started(self, store: StoreContext) -> Sink | None:
        """Have the bytes looked at as they come in, where anybody wants to know."""
        if not self.policy_for(store.association.calling_ae).looks:
            return None
        return SignatureStream(store.transfer_syntax)

    def on_store(self, store: StoreContext) -> None:
        """Judge the signatures by the policy for the caller."""
        policy = self.policy_for(store.association.calling_ae)
        if not policy.looks:
            return
        body = store.body
        assert body is not None  # complete when on_store runs
        stream = cast(SignatureStream, store.verdict_of(self))
        report = self._verifier().verify_streamed(stream, body.open, store.transfer_syntax)
        store.keep(report)
        failures = policy.failures(report)
        store.findings[FINDINGS] = {**report.as_json(), "failures": list(failures)}
        if not failures:
            return
        reason = f"digital signatures: {'; '.join(failures[:_MOST_REASONS])}"
        if self._consequence == "reject":
            raise SignatureRejected(reason)
        logger.warning("%r: %s", store.association, reason)
        store.keep(Suspicion(reason, quarantined=self._consequence == "quarantine"))

    def describe(self) -> str:
        """Return the policy."""
        if not self._policy.looks and not self._overrides:
            return "digital signatures are not looked at"
        others = "".join(f", {ae}: {policy}" for ae, policy in self._overrides.items())
        return f"digital signatures: {self._policy}{others}; else {self._consequence}"
