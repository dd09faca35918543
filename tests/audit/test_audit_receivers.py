"""Other people's receivers take our messages, of every size, octet for octet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dicom_secure_node.audit import messages as m
from dicom_secure_node.audit.messages import AuditMessage
from dicom_secure_node.audit.stored import Stored
from dicom_secure_node.audit.trail import AuditTrail
from dicom_secure_node.audit.transport import Repository
from dicom_secure_node.pki.credential import load_credential
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.spec import audit as spec
from dicom_secure_node.tls.context import ClientContext
from dicom_secure_node.tls.profiles import profile_named
from tests import parts
from tests.audit.samples import SOURCE
from tests.certs import Ca

KIB = 1024
BOM = b"\xef\xbb\xbf"
# Of the reason; A.6 asks for messages of 32768 octets.
SIZES = [1, 100, 1000, 4 * KIB, 8 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 200 * KIB]

RECEIVERS: dict[str, Callable[..., parts.Part]] = {
    "rsyslog with openssl": partial(parts.rsyslog, driver="ossl"),
    "rsyslog with gnutls": partial(parts.rsyslog, driver="gtls"),
    "syslog-ng": parts.syslog_ng,
}


def long(octets: int) -> AuditMessage:
    """Return a message with that much text, some of it beyond ASCII."""
    who = m.Participant("815", requestor=True, name="M\u00fcller, Maja", address="192.0.2.1")
    reason = ("\u00e4" + "x" * 98) * (octets // 100) + "x" * (octets % 100)
    return m.user_authentication(spec.LOGIN, who, outcome=m.MINOR_FAILURE, reason=reason)


@pytest.mark.parametrize("receiver", RECEIVERS.values(), ids=RECEIVERS)
def test_A6_messages_of_every_size(receiver: Callable[..., parts.Part], tmp_path: Path) -> None:
    ca = Ca()
    anchor = ca.anchor(tmp_path / "ca.crt")
    server, client = ca.write(tmp_path, "server"), ca.write(tmp_path, "client")
    context = ClientContext(
        profile_named("8996"), load_credential(client.crt, client.key), load_trust([anchor])
    )
    folder = tmp_path / "arr"
    log = folder / "arrived.log"
    with receiver(folder, ca=anchor, crt=server.crt, key=server.key) as arr:
        to = Repository("arr", "127.0.0.1", arr.port, context=context, server_name="localhost")
        trail = AuditTrail(tmp_path / "trail", SOURCE, [to], hostname="node")
        trail.start()
        for size in SIZES:
            trail.emit(long(size))
        parts.wait_until(
            lambda: log.exists() and log.read_bytes().count(b"\n") >= len(SIZES), "every message"
        )
        stored = [Stored.of(entry).xml for entry in trail.journal.read_from(1)]
        trail.stop()
    lines = log.read_bytes().splitlines()
    assert [line.partition(BOM)[2] for line in lines] == stored
    assert [b' [meta sequenceId="%d"] ' % n in line for n, line in enumerate(lines, 1)] == (
        [True] * len(SIZES)
    )
    read = folder / "numbers.log"
    if read.exists():
        assert read.read_text().split() == [str(n) for n in range(1, len(SIZES) + 1)]
