"""Serve one of our contexts from a process of its own, until standard input ends.

Run as ``python -m tests.tls.serve PROFILE FOLDER``; FOLDER holds ca.crt, node and node-ec. Prints
the port, then the suites OpenSSL would have offered by itself: what its configuration says.
"""

from __future__ import annotations

import sys
from pathlib import Path

from OpenSSL import SSL

from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ServerContext
from dicom_secure_node.tls.profiles import profile_named
from tests.tls.listener import Listener


def main(name: str, folder: Path) -> None:
    credentials = [load_credential_base(folder / base) for base in ("node", "node-ec")]
    trust = load_trust([folder / "ca.crt"])
    with Listener(ServerContext(profile_named(name, True), credentials, trust)) as listener:
        unset = SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD)).get_cipher_list()
        print(listener.port, ",".join(unset), flush=True)
        sys.stdin.read()


main(sys.argv[1], Path(sys.argv[2]))
