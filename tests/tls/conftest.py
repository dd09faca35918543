"""Credentials and trust the tests of this folder share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_secure_node.pki.credential import Credential, load_credential_base
from dicom_secure_node.pki.trust import TrustStore, load_trust
from dicom_secure_node.tls.context import ClientContext, ServerContext
from dicom_secure_node.tls.profiles import profile_named
from tests.certs import Ca, Leaf


@dataclass(frozen=True)
class Pki:
    """One authority, a server with both kinds of key and a client."""

    folder: Path
    ca: Ca
    anchor: Path
    trust: TrustStore
    rsa: Credential
    ec: Credential
    client: Leaf
    client_rsa: Leaf

    @property
    def server(self) -> tuple[Credential, Credential]:
        """Both credentials of the server."""
        return self.rsa, self.ec

    def server_context(self, client_certificate: str = "require") -> ServerContext:
        """Return a server of B.12 with both kinds of key."""
        return ServerContext(profile_named("8996"), self.server, self.trust, client_certificate)

    def client_context(self) -> ClientContext:
        """Return a client of B.12 without a certificate."""
        return ClientContext(profile_named("8996"), None, self.trust)

    def credential(self, leaf: Leaf) -> Credential:
        """Return a leaf as the package loads it."""
        return load_credential_base(leaf.base)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    folder = tmp_path_factory.mktemp("pki")
    ca = Ca()
    anchor = ca.anchor(folder / "ca.crt")
    return Pki(
        folder=folder,
        ca=ca,
        anchor=anchor,
        trust=load_trust([anchor]),
        rsa=load_credential_base(ca.write(folder, "node", key="rsa").base),
        ec=load_credential_base(ca.write(folder, "node-ec").base),
        client=ca.write(folder, "client"),
        client_rsa=ca.write(folder, "client-rsa", key="rsa"),
    )
