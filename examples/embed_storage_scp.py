"""A storage SCP with a handler of its own, behind the gates of a node.toml.

    python examples/embed_storage_scp.py secure-node/node.toml received

Everything in it is pynetdicom but two lines. ``keep`` runs last: TLS, identity and access have
agreed before it is called, and its status is what the peer gets.
"""

import hashlib
import sys
from pathlib import Path

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt

from dicom_secure_node import SecureNode


def keep(event: evt.Event, folder: Path) -> int:
    """Write the instance as it came; a UID is a peer's text and never part of a path."""
    name = hashlib.sha256(event.request.AffectedSOPInstanceUID.encode()).hexdigest()
    (folder / f"{name}.dcm").write_bytes(event.encoded_dataset())
    return 0x0000


def main(config: str, folder: Path) -> None:
    """Serve until a line, or the end, of standard input."""
    folder.mkdir(exist_ok=True)
    ae = AE("PACS1")
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)

    with SecureNode(config) as node:
        server = node.start_server(
            ae, ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep, [folder])]
        )
        print(server.server_address[1], flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
