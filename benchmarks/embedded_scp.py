"""The same application as `benchmarks.bare_scp`, its server started by `SecureNode`.

Usage: ``python -m benchmarks.embedded_scp PORT FOLDER CREDENTIAL CA HOME [--show-pdus]``. The
application still writes the file itself; TLS, certificate, identity, access and audit are ours.

With ``--show-pdus`` it binds a handler of EVT_PDU_RECV that does nothing. pynetdicom then decodes
each PDU for it, and the data goes pynetdicom's own way.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt

from benchmarks import bare_scp
from dicom_secure_node import SecureNode, config
from dicom_secure_node.identity.access import AccessRule

_PLUGINS = ("certificate", "identity", "access", "audit")


def look(_: evt.Event) -> None:
    """Do nothing: being bound is what counts."""


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded_scp")
    parser.add_argument("port", type=int)
    for name in ("folder", "credential", "ca", "home"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--show-pdus", action="store_true")
    args = parser.parse_args()
    users = args.home / "users.toml"
    users.touch()
    listener = config.Listener(credential=(args.credential,), trust=(args.ca,))
    rule = AccessRule("allow", operation=("C-ECHO", "C-STORE"))
    tables = config.NodeConfig(
        (listener,),
        config.Node("BARE", _PLUGINS),
        access=config.Access((rule,)),
        identity=config.Identity(passcode=config.Passcode(users)),
        audit=config.Audit(args.home / "audit"),
    )
    ae = AE("BARE")
    ae.maximum_pdu_size = bare_scp.PDU_LENGTH
    ae.maximum_associations = 20
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context(bare_scp.VERIFICATION)
    handlers: list[tuple[object, ...]] = [(evt.EVT_C_STORE, bare_scp.store, [args.folder])]
    if args.show_pdus:
        handlers.append((evt.EVT_PDU_RECV, look))
    with SecureNode(tables) as node:
        node.start_server(ae, ("127.0.0.1", args.port), evt_handlers=handlers)


if __name__ == "__main__":
    main()
