"""Report events of your own: a query answered, a disc written, a study deleted.

    python examples/report_events.py secure-node/node.toml

The node itself reports connections, users, refusals and transfers. What your program does with
the data only your program knows.
"""

import sys
from collections.abc import Iterator

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicom_secure_node import SecureNode
from dicom_secure_node.audit import messages
from dicom_secure_node.spec import audit as codes

ADA = messages.Participant("ada@example.org", requestor=True, name="Ada")
PATIENT = messages.patient("PID-0042", "Doe^Jane")
STUDY = messages.study("1.2.826.0.1.3680043.8.498.1", "CT chest", accessions=["A-0815"])


def find(event: evt.Event, node: SecureNode) -> Iterator[tuple[int, Dataset | None]]:
    """Report the query, then answer it; if it cannot be recorded, nobody gets an answer."""
    asked = messages.DicomQuery(
        event.request.AffectedSOPClassUID,
        event.context.transfer_syntax,
        event.request.Identifier.getvalue(),
    )
    peer, us, user = node.audit.peer(event), node.audit.process(), node.audit.user(event)
    node.audit.emit(messages.query(peer, us, asked, others=user))
    yield 0x0000, None


def main(config: str) -> None:
    """Serve until a line, or the end, of standard input; then burn a disc and delete a study."""
    ae = AE("PACS1")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    with SecureNode(config) as node:
        handlers = [(evt.EVT_C_FIND, find, [node])]
        server = node.start_server(ae, ("127.0.0.1", 0), block=False, evt_handlers=handlers)
        print(server.server_address[1], flush=True)
        sys.stdin.readline()

        who = [ADA, node.audit.process()]
        disc = messages.Medium(codes.CD, "disc of burner 2", alternative_id="DISC 4711")
        node.audit.emit(messages.data_export(who, disc, PATIENT, studies=STUDY))
        node.audit.emit(messages.study_deleted(who, STUDY, PATIENT, reason="retention period"))


if __name__ == "__main__":
    main(sys.argv[1])
