"""What of NIST's path validation tests (PKITS 1.0.1) is claimed, by section.

``docs/path-validation.md`` shows this table, and the tests run what it claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PkitsSection:
    """One section of PKITS.

    Attributes
    ----------
    number, title : str
        As NIST prints them.
    claimed : {"yes", "partly", "no"}
        ``yes``: every test gives what NIST expects; ``no``: none is claimed.
    note : str
        What is not claimed, and why.
    """

    number: str
    title: str
    claimed: Literal["yes", "partly", "no"]
    note: str = ""


_DEFAULTS = "With the default inputs: any policy is acceptable and none is asked for."
_NO_INPUTS = "These give sets of policies to the algorithm; a signature policy here has none."

PKITS: tuple[PkitsSection, ...] = (
    PkitsSection(
        "4.1",
        "Signature Verification",
        "partly",
        "Without tests 4 and 5: DSA of 1024 bits with SHA-1 is refused as weak.",
    ),
    PkitsSection("4.2", "Validity Periods", "yes"),
    PkitsSection("4.3", "Verifying Name Chaining", "yes"),
    PkitsSection("4.4", "Basic Certificate Revocation Tests", "yes"),
    PkitsSection("4.5", "Verifying Paths with Self-Issued Certificates", "yes"),
    PkitsSection("4.6", "Verifying Basic Constraints", "yes"),
    PkitsSection("4.7", "Key Usage", "yes"),
    PkitsSection("4.8", "Certificate Policies", "no", _NO_INPUTS),
    PkitsSection("4.9", "Require Explicit Policy", "yes", _DEFAULTS),
    PkitsSection("4.10", "Policy Mappings", "no", _NO_INPUTS),
    PkitsSection("4.11", "Inhibit Policy Mapping", "yes", _DEFAULTS),
    PkitsSection(
        "4.12", "Inhibit Any Policy", "partly", f"{_DEFAULTS} Test 3 has others, and is left out."
    ),
    PkitsSection("4.13", "Name Constraints", "yes"),
    PkitsSection("4.14", "Distribution Points", "yes"),
    PkitsSection("4.15", "Delta-CRLs", "yes"),
    PkitsSection("4.16", "Private Certificate Extensions", "yes"),
)
