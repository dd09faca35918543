"""Is what was found out about an instance's signatures good enough?

======================  ==================================================================
requirement             an instance satisfies it when
======================  ==================================================================
`ignore`                always; nobody looks
`verify-if-present`     every signature in it is valid; it may have none
`require-signature`     the same, and at least one is in the main data set
`require-creator`       ... and meets PS3.15 C.2
`require-authorization` ... and meets PS3.15 C.3
`require-sr`            ... and meets PS3.15 C.4, as the Verification Flag demands
`require-timestamp`     ... and has a certified time
======================  ==================================================================

Of several requirements, one signature has to satisfy all. An invalid signature fails every
requirement but `ignore`, also beside a good one: somebody changed something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.signatures.report import InstanceReport, SignatureReport

Requirement = Literal[
    "ignore",
    "verify-if-present",
    "require-signature",
    "require-creator",
    "require-authorization",
    "require-sr",
    "require-timestamp",
]

_PROFILE = {
    "require-creator": "creator",
    "require-authorization": "authorization",
    "require-sr": "sr",
}


@dataclass(frozen=True)
class SignaturePolicy:
    """What an instance's signatures have to be.

    Attributes
    ----------
    requirements : tuple of str
        See the table above.
    refuse_weak : bool
        A signature by MD5, SHA-1 or RIPEMD-160, or with a key below 2048 bits, counts as invalid.
        C.1 has every verifier handle those digests, so this is a matter of the site.
    """

    requirements: tuple[Requirement, ...] = ("require-signature",)
    refuse_weak: bool = False

    def __post_init__(self) -> None:
        for found in self.requirements:
            if found not in get_args(Requirement):
                known = ", ".join(get_args(Requirement))
                raise ConfigurationError(f"found {found!r}, wanted one of {known}")
        if not self.requirements:
            raise ConfigurationError("found no requirement, wanted at least one")
        if "ignore" in self.requirements and len(self.requirements) > 1:
            raise ConfigurationError("found 'ignore' beside others, wanted it alone")

    @property
    def looks(self) -> bool:
        """Whether anybody has to look at signatures at all."""
        return self.requirements != ("ignore",)

    def failures(self, report: InstanceReport) -> tuple[str, ...]:
        """Return why an instance does not satisfy the policy; empty when it does."""
        if not self.looks:
            return ()
        if report.problem:
            return (report.problem,)
        bad = [f"{_place(one)}{why}" for one in report.signatures for why in self._reasons(one)]
        if report.not_looked_at:
            bad.append(f"{report.not_looked_at} signatures too many were not looked at")
        if bad:
            return tuple(bad)
        demands = [one for one in self.requirements if one != "verify-if-present"]
        if not demands:
            return ()
        found = [one for one in report.signatures if not one.location]
        if not found:
            return (f"no digital signature of the main data set ({self})",)
        shortfalls = [
            tuple(why for demand in demands for why in _shortfall(demand, one)) for one in found
        ]
        return min(shortfalls, key=len)  # of the signature that comes closest

    def _reasons(self, one: SignatureReport) -> tuple[str, ...]:
        if one.valid and self.refuse_weak:
            return tuple(f"too weak: {what}" for what in one.weak)
        return one.reasons

    def __str__(self) -> str:
        return ", ".join(self.requirements)


def _place(one: SignatureReport) -> str:
    return f"signature at {one.location}: " if one.location else "signature: "


def _shortfall(demand: str, one: SignatureReport) -> tuple[str, ...]:
    """Return what a valid signature lacks that a requirement demands."""
    if demand == "require-timestamp":
        return () if one.timestamped else ("the signature has no certified timestamp that counts",)
    profile = _PROFILE.get(demand, "")
    if profile == "sr" and one.verified_document:
        profile = "sr-verification"  # who verified it has to have signed that (PS3.15 C.4)
    return one.shortfalls.get(profile, ())
