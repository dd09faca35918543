"""Use of an instance what was signed, and nothing else.

    python signed_content.py CA SIGNED

A signature is silent about elements it does not list, and about those somebody added since. Here
they are not in the data set, so nobody can use them by mistake.
"""

import sys
from pathlib import Path

from dicom_secure_node.errors import SignatureRejected
from dicom_secure_node.pki.paths import PathValidator
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.signatures.content import signed_content
from dicom_secure_node.signatures.policy import SignaturePolicy
from dicom_secure_node.signatures.verify import Verifier

POLICY = SignaturePolicy(("require-signature",), refuse_weak=True)


def main(authority: str, signed: str) -> int:
    """Print whose image it is and how far its pixels are apart, where both were signed."""
    verifier = Verifier(PathValidator(load_trust([Path(authority)])))
    try:
        content = signed_content(Path(signed), verifier, POLICY)
    except SignatureRejected as exc:
        print(f"not used: {exc.reason}")
        return 1
    ds = content.dataset()
    print(f"{len(content.covered)} elements are signed, {len(content.left_out)} are not")
    print(f"Patient ID: {ds.get('PatientID', 'nobody says')}")
    print(f"Pixel Spacing: {ds.get('PixelSpacing', 'nobody says')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
