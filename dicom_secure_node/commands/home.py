"""A home for a first node: everything `serve` needs, made when there is nothing yet."""

from __future__ import annotations

from pathlib import Path

from dicom_secure_node.durable.files import write_atomically
from dicom_secure_node.pki.authority import LocalAuthority, local_hosts

DEFAULT_HOME = Path("secure-node")
DEFAULT_PORT = 2762  # dicom-tls (PS3.15 B.12)

NODE_TOML = """\
# A secure DICOM storage node. Every key, with its default: docs/configuration.md.
# After a change: dicom-secure-node config check {home}/node.toml

[node]
ae_title = "SECURENODE"           # our own; callers may use any called AE title
# What happens to an association, in this order.
plugins = ["certificate", "identity", "access", "signatures", "storage", "audit"]

[[listener]]
name = "tls"
host = "0.0.0.0"                  # "::" also takes IPv6
port = {port}
profile = "8996"                  # PS3.15 B.12; "8996-mod" is B.13, "plain" is no TLS at all
client_certificate = "require"    # "verify" checks one if given, "ignore" asks for none
credential = ["pki/node", "pki/node-ec"]
trust = ["pki/ca.crt"]            # who may connect: holders of certificates of this CA
crl = ["pki/ca.crl"]              # minus those revoked: dicom-secure-node pki revoke --home . NAME
identity = "supports"             # user names and passcodes are verified when sent;
                                  # "required" refuses who sends none
mode = "enforce"                  # "observe" records what would be refused, and lets it pass

[identity]
types = ["passcode"]

[identity.passcode]
file = "users.toml"               # dicom-secure-node user add --home . NAME

[archive]
path = "archive"
duplicates = "same-only"          # the same instance with other bytes is refused

[audit]
path = "audit"
when_full = "refuse"

# Send the audit trail to the site's repository as well (RFC 5425):
# [[audit.repository]]
# host = "audit.example.org"
# port = 6514
# trust = ["pki/repository-ca.crt"]
# credential = ["pki/node"]

# Tie an AE title to the certificate of the machine that may use it:
# [[certificate.binding]]
# calling_ae = "CT1"
# san = "dns:ct1.example.org"

# Verify digital signatures on arrival; "require-creator" refuses what the device did not sign:
# [signatures]
# on_store = ["verify-if-present"]
# trust = ["pki/device-ca.crt"]

# With one rule, what no rule allows is refused:
# [[access.rule]]
# effect = "allow"
# calling_ae = ["CT1", "MR*"]
# operation = ["C-ECHO", "C-STORE"]
"""


def make_home(home: Path, port: int | None = None) -> bool:
    """Make what is missing of a home; what is there stays as it is.

    Parameters
    ----------
    home : Path
    port : int, optional
        For the new ``node.toml``.

    Returns
    -------
    bool
        True when a new ``node.toml`` was written.
    """
    config = home / "node.toml"
    if config.exists():
        return False
    home.mkdir(parents=True, exist_ok=True)
    LocalAuthority(home / "pki").equip(local_hosts())
    users = home / "users.toml"
    if not users.exists():
        write_atomically(users, b"# dicom-secure-node user add --home . NAME\n", mode=0o600)
    text = NODE_TOML.format(home=home, port=DEFAULT_PORT if port is None else port)
    write_atomically(config, text.encode())
    return True
