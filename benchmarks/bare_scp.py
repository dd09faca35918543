"""The least a storage SCP on pynetdicom can be: the standard library's TLS, bytes to a file.

Usage: ``python -m benchmarks.bare_scp PORT FOLDER KEY CERTIFICATE CA``. What it is measured for
is what an application starts from: no identity, no policy, no index, no audit, no sync.
"""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE

VERIFICATION = "1.2.840.10008.1.1"
PDU_LENGTH = 131_072  # bytes; the most DCMTK sends, and what all receivers here announce or more


def store(event: evt.Event, folder: Path) -> int:
    """Write the data set as it was received."""
    assert isinstance(event.request, C_STORE)
    path = folder / str(event.request.AffectedSOPInstanceUID)
    path.write_bytes(event.encoded_dataset())
    return 0x0000


def main() -> None:
    """Serve until the process is ended."""
    port, folder, key, certificate, ca = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    ae = AE("BARE")
    ae.maximum_pdu_size = PDU_LENGTH
    ae.maximum_associations = 20
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context(VERIFICATION)
    ae.start_server(
        ("127.0.0.1", int(port)),
        evt_handlers=[(evt.EVT_C_STORE, store, [Path(folder)])],
        ssl_context=context,
    )


if __name__ == "__main__":
    main()
