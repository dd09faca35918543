"""Sign an instance, and look at a signed one before it is used.

    python sign_and_verify.py sign KEY CERT IN OUT
    python sign_and_verify.py use CA SIGNED

The second prints what may be relied on, and ends with 1 where that is not enough.
"""

import sys
from pathlib import Path

from dicom_secure_node import SignaturePolicy, load_signer, sign, verify
from dicom_secure_node.signatures.profiles import BASE
from dicom_secure_node.signatures.sign import Order

PIXEL_SPACING = 0x00280030
POLICY = SignaturePolicy(("require-creator",), refuse_weak=True)


def make(key: str, certificate: str, source: str, target: str) -> int:
    """Sign everything (C.1): whoever measures in the image relies on more than its pixels."""
    made = sign(source, target, load_signer(key, Path(certificate)), Order(BASE))
    print(f"{made.uid} covers {len(made.tags)} elements")
    return 0


def use(authority: str, signed: str) -> int:
    """Say whether distances in the image can be relied on."""
    report = verify(signed, trust=[authority])
    reasons = POLICY.failures(report)
    # Good, and still silent about an element that nobody signed.
    if not reasons and not any(PIXEL_SPACING in s.coverage.signed for s in report.signatures):
        reasons = ("nobody signed the Pixel Spacing",)
    for reason in reasons:
        print(f"not used: {reason}")
    if not reasons:
        print(f"signed by {report.signatures[0].signer}")
    return 1 if reasons else 0


if __name__ == "__main__":
    action, *words = sys.argv[1:]
    sys.exit({"sign": make, "use": use}[action](*words))
