"""Verify passcodes yourself: a back-end of your own behind PS3.15 B.5.

    python examples/identity_backend.py secure-node/node.toml

The policy around it stays: no passcode without TLS, the answer only where it was asked for,
1/2/1 on the wire and the reason in log and audit.
"""

import hmac
import sys

from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicom_secure_node import IdentityRefused, SecureNode
from dicom_secure_node.identity.claims import Claim, Identity, IdentityType, PeerFacts
from dicom_secure_node.identity.policy import Demand, IdentityPolicy
from dicom_secure_node.node.plugins.identity import IdentityPlugin


class DutyRoster:
    """Whoever is on duty, with the word of the day. Yours would ask a directory.

    One object serves all associations at once, each in a thread of its own.
    """

    kinds = frozenset({IdentityType.PASSCODE})
    on_duty = frozenset({"ada", "grace"})
    word = b"of the day"

    def verify(self, claim: Claim, peer: PeerFacts) -> Identity:
        """Return who it is, or raise; the reason must not hold the passcode."""
        right = hmac.compare_digest(claim.secondary, self.word)  # before the name: same time
        if claim.user not in self.on_duty or not right:
            who = f"user {claim.user!r} from {peer.address}"
            raise IdentityRefused(f"{who} is not on duty, or has the wrong word")
        return Identity(claim.user, claim.kind, frozenset({"duty"}), how="duty roster")


def main(config: str) -> None:
    """Serve until a line, or the end, of standard input."""
    policy = IdentityPolicy(Demand.of("required", DutyRoster.kinds))
    plugin = IdentityPlugin({"tls": policy}, [DutyRoster()])
    ae = AE("PACS1")
    ae.add_supported_context(Verification)
    with SecureNode(config, plugins={"identity": plugin}) as node:
        server = node.start_server(ae, ("127.0.0.1", 0), block=False, listener="tls")
        print(server.server_address[1], flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1])
