"""Everything the back-ends refuse, sent by a peer: A-ASSOCIATE-RJ 1, 2, 1, and its reason in audit.

The tables are those of the back-ends' own tests. Here each claim travels in an A-ASSOCIATE-RQ to
a listener with the identity gate and the audit trail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dicom_secure_node.audit.limiter import AlertLimiter
from dicom_secure_node.audit.messages import AuditMessage, AuditSource
from dicom_secure_node.identity.claims import Backend, IdentityType
from dicom_secure_node.identity.policy import Demand, IdentityPolicy
from dicom_secure_node.identity.saml import SamlBackend
from dicom_secure_node.node.plugins.audit import AuditPlugin
from dicom_secure_node.node.plugins.identity import IdentityPlugin
from tests.certs import Ca
from tests.identity import kdc, tokens, wrapping
from tests.identity.saml_issuers import AUDIENCE, NOW, SECRET, Mint
from tests.identity.test_identity_jwt import REFUSED as TOKENS
from tests.identity.test_identity_kerberos import REFUSALS as TICKETS
from tests.identity.test_identity_ldap import REFUSED as LOGINS
from tests.identity.test_identity_ldap import Site as DirectorySite
from tests.identity.test_identity_ldap import site as directory  # noqa: F401 - a fixture
from tests.identity.test_identity_saml import REFUSED as ASSERTIONS
from tests.loopback import port_of, request_pdu, serving
from tests.system.raw import ASSOCIATE_AC, ASSOCIATE_RJ, Peer, identity_item
from tests.system.running import tcp

DOCUMENTS = wrapping.WRAPPINGS | wrapping.SIGNATURES | wrapping.MARKUP
del DOCUMENTS["more than the field can hold"]
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = AuditSource("NODE")


class Trail:
    """Keeps what is emitted."""

    full = False

    def __init__(self) -> None:
        self.emitted: list[AuditMessage] = []

    def emit(self, message: AuditMessage) -> None:
        self.emitted.append(message)


def answer(
    backend: Backend, kind: IdentityType, field: bytes, passcode: bytes = b""
) -> tuple[int, bytes, str]:
    """Return type and body of the answer to `field`, and the audit messages until then."""
    item = identity_item(kind, field, passcode)
    trail, hours = Trail(), count()
    # A new hour for each message, so that none is summed up.
    limiter = AlertLimiter(lambda: NEW_YEAR + timedelta(hours=next(hours)))
    policy = IdentityPolicy(Demand.of("required", [kind]), protected_only=False)
    gates = [
        IdentityPlugin({"loopback": policy}, [backend]),
        AuditPlugin(trail, "NODE", limiter),
    ]
    with serving(gates) as server, Peer(tcp(port_of(server))) as peer:
        found, body = peer.associate(request_pdu(user_information=item))
    return found, body, "\n".join(message.to_xml(SOURCE, NEW_YEAR) for message in trail.emitted)


def check_refused(
    backend: Backend, kind: IdentityType, field: bytes, reason: str, passcode: bytes = b""
) -> str:
    """Assert that `field` is refused as PS3.7 D.3.3.7 wants, for `reason`; return the audit."""
    if not field:
        reason = ""  # pynetdicom reads an empty field as two zeros, which are refused as such
    found, body, audit = answer(backend, kind, field, passcode)
    assert (found, body) == (ASSOCIATE_RJ, b"\0\x01\x02\x01")
    assert 'EventOutcomeIndicator="8"' in audit
    assert "Login" in audit
    assert re.search(reason, _unescaped(audit)), audit
    return audit


def _unescaped(xml: str) -> str:
    for entity, character in {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&amp;": "&"}.items():
        xml = xml.replace(entity, character)
    return xml


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokens.write_keys(tmp_path_factory.mktemp("jwt") / "keys.json")


@pytest.mark.parametrize("case", TOKENS)
def test_a_token(case: str, key_file: Path) -> None:
    token, reason = TOKENS[case]
    backend = tokens.backend_of(key_file)
    audit = check_refused(backend, IdentityType.JWT, token, re.escape(reason))
    assert not [secret for secret in tokens.secrets_of(token) if secret in audit]


def test_a_good_token(key_file: Path) -> None:
    found, _, audit = answer(tokens.backend_of(key_file), IdentityType.JWT, tokens.signed())
    assert found == ASSOCIATE_AC
    assert 'EventOutcomeIndicator="0"' in audit
    assert "ada" in audit


@pytest.fixture(scope="module")
def mint(tmp_path_factory: pytest.TempPathFactory) -> Mint:
    start, end = NOW.replace(year=NOW.year - 1), NOW.replace(year=NOW.year + 1)
    leaf = Ca().write(tmp_path_factory.mktemp("saml"), "idp", key="rsa", start=start, end=end)
    made = Mint(leaf)
    saml(made)  # from here on signxml is quiet, also when it signs for the mint
    return made


def saml(mint: Mint) -> SamlBackend:
    return SamlBackend(AUDIENCE, [mint.issuer], clock=lambda: NOW)


@pytest.mark.parametrize("case", ASSERTIONS)
def test_B7_an_assertion(case: str, mint: Mint) -> None:
    changes, reason = ASSERTIONS[case]
    document = mint.with_(**changes).assertion()
    audit = check_refused(saml(mint), IdentityType.SAML, document, re.escape(reason))
    assert SECRET not in audit


@pytest.mark.parametrize("case", DOCUMENTS)
def test_B7_an_attack_on_the_signature(case: str, mint: Mint) -> None:
    make, reason = DOCUMENTS[case]
    document = make(mint)
    audit = check_refused(saml(mint), IdentityType.SAML, document, reason)
    assert SECRET not in audit


def test_B7_a_good_assertion(mint: Mint) -> None:
    found, _, audit = answer(saml(mint), IdentityType.SAML, mint.assertion())
    assert found == ASSOCIATE_AC
    assert 'EventOutcomeIndicator="0"' in audit


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kdc.Site]:
    with kdc.running(tmp_path_factory.mktemp("kerberos")) as running:
        yield running


@pytest.mark.parametrize("case", TICKETS)
def test_B6_a_ticket(case: str, site: kdc.Site) -> None:
    make: Callable[[kdc.Site], bytes]
    make, options, reason = TICKETS[case]
    changed: dict[str, Any] = {"keytab": site.stale} if "keytab" in options else {}
    ticket = make(site)
    backend = site.backend(**(options | changed))
    audit = check_refused(backend, IdentityType.KERBEROS, ticket, reason)
    assert not [piece for piece in kdc.pieces(ticket) if piece in audit]


def test_B6_a_good_ticket_is_taken_once(site: kdc.Site) -> None:
    backend, ticket = site.backend(), site.ticket()
    found, _, audit = answer(backend, IdentityType.KERBEROS, ticket)
    assert found == ASSOCIATE_AC
    assert 'EventOutcomeIndicator="0"' in audit
    check_refused(backend, IdentityType.KERBEROS, ticket, "used|replay")


@pytest.mark.parametrize("case", LOGINS)
def test_B5_a_login_at_the_directory(case: str, directory: DirectorySite) -> None:  # noqa: F811
    user, given, reason = LOGINS[case]
    passcode = given.encode() if isinstance(given, str) else given
    backend = directory.backend()
    audit = check_refused(
        backend, IdentityType.PASSCODE, user.encode(), re.escape(reason), passcode
    )
    assert "planted" not in audit
