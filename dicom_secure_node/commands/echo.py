"""``echo``: ask a peer whether it is there, with TLS and user identity (C-ECHO)."""

from __future__ import annotations

import argparse
import sys
import time

from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from dicom_secure_node.commands import Subparsers, outbound
from dicom_secure_node.commands.output import emit_json
from dicom_secure_node.node.sending import status_words
from dicom_secure_node.tls.facts import TLSFacts

_EXAMPLES = """examples:
  dicom-secure-node echo pacs.example.org 2762 --credential secure-node/pki
  dicom-secure-node echo 127.0.0.1 11112 --plain --called ORTHANC
"""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``echo``."""
    parser = subparsers.add_parser(
        "echo",
        help="ask a peer whether it is there",
        description="Associate with a peer and send C-ECHO. Exit code 1: it refused, "
        "and the error says why; 3: nobody answered.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    outbound.add_peer(parser)


def run(args: argparse.Namespace) -> int:
    """Call the peer and return the exit code."""
    open_association = outbound.opener(args)
    start = time.perf_counter()
    association = open_association([build_context(Verification)])
    try:
        request = C_ECHO()
        request.MessageID = 1
        request.AffectedSOPClassUID = Verification
        status = association.send_request(request, 1)
        facts = association.tls_facts
    except BaseException:
        association.abort()
        raise
    association.end()
    seconds = time.perf_counter() - start
    _, text = status_words(status)
    if args.json:
        emit_json(
            {
                "host": args.host,
                "port": args.port,
                "ok": not status,
                "status": f"0x{status:04X}",
                "text": text,
                "seconds": round(seconds, 4),
                "tls": _tls(facts),
            }
        )
    else:
        over = f"{facts.version}, {facts.suite}" if facts else "without TLS"
        answer = text or "echo answered"
        sys.stdout.write(f"{args.host}:{args.port} {answer} ({over}, {seconds * 1000:.0f} ms)\n")
    return 1 if status else 0


def _tls(facts: TLSFacts | None) -> dict[str, object] | None:
    if facts is None:
        return None
    return {
        "version": facts.version,
        "suite": facts.suite,
        "group": facts.group,
        "subject": facts.subject,
        "fingerprint": facts.fingerprint,
    }
