"""``[signatures]``: what digital signatures of incoming instances have to be (PS3.15 Annex C)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.signatures.policy import Requirement, SignaturePolicy


@dataclass(frozen=True)
class Signatures:
    """``[signatures]``.

    Attributes
    ----------
    on_store : tuple of str
        ``ignore``, ``verify-if-present``, ``require-signature``, ``require-creator``,
        ``require-authorization``, ``require-sr``, ``require-timestamp``; of several, one
        signature has to satisfy all.
    on_store_for : mapping of str to tuple of str
        The same for single calling AE titles.
    refused : str
        What becomes of an instance that does not satisfy it: ``reject``, ``quarantine`` (kept
        below the archive's folder, apart from the others) or ``mark`` (kept, with a remark).
    refuse_weak : bool
        MD5, SHA-1, RIPEMD-160 and keys below 2048 bits count as invalid.
    trust, intermediates, crl : tuple of Path
        Whose certificates signers may have, what lies between, and revocation lists. With a list
        given, every certificate is checked against it.
    timestamp_trust : tuple of Path
        Authorities of certified timestamps; those of `trust` where left out.
    fetch : bool
        Ask the addresses in a certificate for revocation lists and OCSP answers.
    """

    on_store: tuple[Requirement, ...] = ("ignore",)
    on_store_for: Mapping[str, tuple[Requirement, ...]] = field(default_factory=dict)
    refused: Literal["reject", "quarantine", "mark"] = "reject"
    refuse_weak: bool = False
    trust: tuple[Path, ...] = ()
    intermediates: tuple[Path, ...] = ()
    crl: tuple[Path, ...] = ()
    timestamp_trust: tuple[Path, ...] = ()
    fetch: bool = False

    def __post_init__(self) -> None:
        _ = self.policy, self.overrides
        if self.looks and not self.trust:
            raise ConfigurationError("found none, wanted whose signers to trust", "trust")

    @property
    def policy(self) -> SignaturePolicy:
        """The policy for everybody else."""
        return self._policy(self.on_store, "on_store")

    @property
    def overrides(self) -> Mapping[str, SignaturePolicy]:
        """The policies by calling AE title."""
        return {
            title: self._policy(wanted, "on_store_for")
            for title, wanted in self.on_store_for.items()
        }

    @property
    def looks(self) -> bool:
        """Whether signatures are looked at at all."""
        return self.policy.looks or any(one.looks for one in self.overrides.values())

    def _policy(self, wanted: tuple[Requirement, ...], key: str) -> SignaturePolicy:
        try:
            return SignaturePolicy(wanted, self.refuse_weak)
        except ConfigurationError as exc:
            raise ConfigurationError(str(exc), key) from exc
