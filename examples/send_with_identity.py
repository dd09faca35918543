"""Send a file as an identified user, and insist that the peer confirms it (PS3.15 B.5).

    python examples/send_with_identity.py HOST PORT secure-node/pki USER FILE < passcode.txt

Ends with an error that says why when there is no association: which side refused, and the words
of PS3.8 Table 9-21.
"""

import sys
from pathlib import Path

from pydicom import dcmread
from pynetdicom import build_context

from dicom_secure_node.identity.claims import Claim, IdentityType
from dicom_secure_node.node.scu import associate
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ClientContext
from dicom_secure_node.tls.profiles import profile_named


def main(host: str, port: int, pki: Path, user: str, file: Path) -> int:
    """Return the status of the C-STORE."""
    passcode = sys.stdin.buffer.readline().rstrip(b"\r\n")
    claim = Claim(IdentityType.PASSCODE, user.encode(), passcode, response_requested=True)
    tls = ClientContext(
        profile_named("B.12"),
        load_credential_base(pki / "client"),
        load_trust([pki / "ca.crt"], [pki / "ca.crl"]),
    )
    ds = dcmread(file)
    assoc = associate(
        host,
        port,
        calling="SENDER",
        called="SECURENODE",
        contexts=[build_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)],
        tls_context=tls,
        identity=claim,
    )
    print(f"{assoc.tls_facts.version}, {assoc.tls_facts.suite}, {assoc.tls_facts.group}")
    status = assoc.send_c_store(ds)  # a pynetdicom Association, with all that it can
    assoc.release()
    print(f"status 0x{status.Status:04X}")
    return status.Status


if __name__ == "__main__":
    host, port, pki, user, file = sys.argv[1:]
    sys.exit(1 if main(host, int(port), Path(pki), user, Path(file)) else 0)
