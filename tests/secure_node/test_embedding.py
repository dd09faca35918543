"""SecureNode in a program of one's own: the contract of the embedding API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification

from dicom_secure_node import config
from dicom_secure_node.audit.validate import validate
from dicom_secure_node.errors import (
    AccessRefused,
    ConfigurationError,
    HandshakeRefused,
    PeerRefused,
)
from dicom_secure_node.identity.claims import Claim, IdentityType
from dicom_secure_node.identity.userfile import add_user
from dicom_secure_node.node.plugin import Plugin
from dicom_secure_node.secure_node import SecureNode
from tests.certs import Ca
from tests.loopback import CT_SMALL, CT_STORAGE, application_entity, port_of
from tests.parts import run, wait_until

TOML = """
[node]
ae_title = "EMBEDDED"
plugins = ["certificate", "identity", "access", {more}"audit"]

[[listener]]
name = "main"
profile = "8996"
credential = ["node"]
trust = ["ca.crt"]
crl = ["ca.crl"]
{listener}

[limits]
stop_seconds = 5

{tables}
"""


class Site:
    """A folder with credentials and a configuration, and the node that was made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = Ca()
        self.ca.anchor(folder / "ca.crt")
        self.ca.crl(folder / "ca.crl")
        self.ca.write(folder, "node")
        self.client = self.ca.write(folder, "client")
        (folder / "users.toml").touch()
        self.node: SecureNode | None = None

    def configure(self, listener: str = "", tables: str = "", more: str = "") -> Path:
        path = self.folder / "node.toml"
        path.write_text(TOML.format(listener=listener, tables=tables, more=more))
        return path

    def build(self, plugins: dict[str, Plugin] | None = None, **texts: str) -> SecureNode:
        self.node = SecureNode(self.configure(**texts), plugins)
        return self.node

    def audit(self) -> list[str]:
        """Return every audit message on the disk, each of them valid."""
        messages = [
            json.loads(line)["xml"]
            for path in sorted((self.folder / "audit").glob("*.ndjson"))
            for line in path.read_text().splitlines()
        ]
        for message in messages:
            report = validate(message.encode())
            assert report.valid, (message, report.problems)
        return messages

    def wait_for_audit(self, *words: str) -> str:
        def found() -> list[str]:
            return [m for m in self.audit() if all(word in m for word in words)]

        wait_until(found, f"an audit message with {words}")
        return found()[0]

    @property
    def dcmtk(self) -> list[Any]:
        return ["+tls", self.client.key, self.client.crt, "+cf", self.folder / "ca.crt"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    if made.node is not None:
        made.node.stop()


def kept(_: Any) -> int:
    return 0x0000


def test_ten_lines_give_an_existing_scp_tls_gates_and_audit(site: Site) -> None:
    stored: list[bytes] = []
    released: list[Any] = []

    def handle_store(event: evt.Event, storage: list[bytes]) -> int:
        storage.append(event.encoded_dataset(include_meta=False))
        return 0x0000

    node = site.build()
    server = node.start_server(
        application_entity(),
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[
            (evt.EVT_C_STORE, handle_store, [stored]),
            (evt.EVT_RELEASED, released.append),
        ],
    )
    assert server is not None
    done = run(["storescu", *site.dcmtk, "127.0.0.1", str(port_of(server)), CT_SMALL])
    assert done.returncode == 0, done.stderr
    assert len(stored) == 1
    site.wait_for_audit("Begin Transferring", "1CT1")
    site.wait_for_audit("DICOM Instances Transferred", 'NumberOfInstances="1"', "CompressedSamples")
    wait_until(lambda: released, "the application's own notification")
    refused = run(["storescu", "127.0.0.1", str(port_of(server)), CT_SMALL])
    assert refused.returncode
    site.wait_for_audit("Node Authentication", "not TLS")
    site.wait_for_audit("Application Start")


def test_both_ends_of_an_association(site: Site) -> None:
    add_user(site.folder / "users.toml", "ada", b"planted-right", datetime.now(UTC))
    node = site.build(listener='identity = "required"')
    server = node.start_server(application_entity(), ("127.0.0.1", 0), block=False)
    assert server is not None
    requestor = AE(ae_title="SCU")
    requestor.add_requested_context(CT_STORAGE)

    def associate(passcode: bytes) -> Any:
        return node.associate(
            requestor,
            "127.0.0.1",
            port_of(server),
            identity=Claim(IdentityType.PASSCODE, b"ada", passcode, response_requested=True),
        )

    assoc = associate(b"planted-right")
    assert assoc.is_established
    assert assoc.acceptor.user_identity.server_response == b""
    assoc.release()
    with pytest.raises(PeerRefused, match="1/2/1"):
        associate(b"planted-wrong")
    site.wait_for_audit("Login", 'EventOutcomeIndicator="0"', "ada")
    site.wait_for_audit("Login", "wrong passcode")
    site.wait_for_audit("Logout", "ada")
    assert not any("planted" in message for message in site.audit())


def test_notification_handlers_and_negotiation_items_of_a_requestor(site: Site) -> None:
    node = site.build()
    server = node.start_server(application_entity(), ("127.0.0.1", 0), block=False)
    assert server is not None
    accepted: list[Any] = []
    requestor = AE()
    requestor.add_requested_context("1.2.840.10008.1.1")
    assoc = node.associate(
        requestor,
        "127.0.0.1",
        port_of(server),
        evt_handlers=[(evt.EVT_ACCEPTED, accepted.append)],
    )
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()
    assert accepted


class NoMondays(Plugin):
    """Refuses everybody."""

    def on_association_requested(self, association: Any) -> None:
        raise AccessRefused("no Mondays")


class Broken(Plugin):
    """Has a hook nobody calls."""

    def on_monday(self) -> None:
        """Never called."""


@pytest.mark.parametrize("name", ["mondays", "tests.secure_node.test_embedding:NoMondays"])
def test_own_plugin(site: Site, name: str) -> None:
    given = {name: NoMondays()} if name == "mondays" else None
    node = site.build(given, more=f'"{name}", ')
    server = node.start_server(application_entity(), ("127.0.0.1", 0), block=False)
    assert server is not None
    done = run(["echoscu", *site.dcmtk, "127.0.0.1", str(port_of(server))])
    assert done.returncode
    site.wait_for_audit("no Mondays", "Use of Restricted Function")


class NoVerification(Plugin):
    """Refuses one SOP class."""

    def on_association_requested(self, association: Any) -> None:
        association.refuse_context(Verification, "nobody has to ask")


def test_contexts_refused_one_by_one_leave_one_alert(site: Site) -> None:
    node = site.build({"quiet": NoVerification()}, more='"quiet", ')
    server = node.start_server(application_entity(), ("127.0.0.1", 0), block=False)
    assert server is not None
    requestor = AE()
    requestor.add_requested_context(Verification)
    requestor.add_requested_context(CTImageStorage)
    assoc = node.associate(requestor, "127.0.0.1", port_of(server))
    assert [str(context.abstract_syntax) for context in assoc.accepted_contexts] == [CTImageStorage]
    assoc.release()
    site.wait_for_audit(
        "SOP classes refused", "nobody has to ask", 'EventOutcomeIndicator="4"', "Restricted"
    )


BAD_PLUGINS: dict[str, tuple[str, dict[str, Plugin] | None, str]] = {
    "unknown name": ('"nonsense", ', None, "no plug-in 'nonsense'"),
    "module that does not exist": ('"nonsense:Plugin", ', None, "No module named 'nonsense'"),
    "class that does not exist": ('"json:Plugin", ', None, "no attribute 'Plugin'"),
    "something that is no plug-in": ('"json:JSONDecoder", ', None, "does not derive from Plugin"),
    "given and not listed": ("", {"mine": NoMondays()}, "'mine' is not listed"),
}


@pytest.mark.parametrize(("more", "given", "words"), BAD_PLUGINS.values(), ids=BAD_PLUGINS)
def test_plugin_that_cannot_be_had(
    site: Site, more: str, given: dict[str, Plugin] | None, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        site.build(given, more=more)
    site.build()  # nothing was left locked


def test_plugin_with_a_hook_nobody_calls(site: Site) -> None:
    node = site.build({"broken": Broken()}, more='"broken", ')
    with pytest.raises(ConfigurationError, match="on_monday, which is never called"):
        node.start_server(application_entity(), ("127.0.0.1", 0), block=False)


def test_configuration_built_by_a_program(site: Site) -> None:
    listener = config.Listener(
        name="mine",
        credential=(site.folder / "node",),
        trust=(site.folder / "ca.crt",),
    )
    tables = config.NodeConfig(
        listener=(listener,),
        node=config.Node(plugins=("certificate", "identity", "access", "audit")),
        audit=config.Audit(path=site.folder / "audit"),
        identity=config.Identity(types=("username",)),
    )
    site.node = SecureNode(tables)
    server = site.node.start_server(application_entity(), ("127.0.0.1", 0), block=False)
    assert server is not None
    assert run(["echoscu", *site.dcmtk, "127.0.0.1", str(port_of(server))]).returncode == 0


def test_unknown_listener_is_named(site: Site) -> None:
    node = site.build()
    with pytest.raises(ConfigurationError, match="no listener 'other', known: main"):
        node.start_server(application_entity(), ("127.0.0.1", 0), listener="other")


RELOADS: dict[str, Callable[[Site], Any]] = {
    "a certificate file that is none": lambda site: (site.folder / "node.crt").write_text("junk"),
    "a key that does not fit": lambda site: site.ca.write(site.folder / "other", "node").key.rename(
        site.folder / "node.key"
    ),
    "a revocation list that is none": lambda site: (site.folder / "ca.crl").write_text("junk"),
    "trust that is gone": lambda site: (site.folder / "ca.crt").unlink(),
}


@pytest.mark.parametrize("spoil", RELOADS.values(), ids=RELOADS)
def test_bad_new_file_keeps_the_last_good_one_and_says_so(site: Site, spoil: Any) -> None:
    (site.folder / "other").mkdir()
    node = site.build()
    server = node.start_server(application_entity(), ("127.0.0.1", 0), block=False)
    assert server is not None
    anchor = site.folder / "anchor.crt"
    anchor.write_bytes((site.folder / "ca.crt").read_bytes())
    tls = ["+tls", site.client.key, site.client.crt, "+cf", anchor]
    spoil(site)
    assert run(["echoscu", *tls, "127.0.0.1", str(port_of(server))]).returncode == 0
    site.wait_for_audit("Security Configuration", "the last good ones stay")


def test_revocation_counts_from_the_next_connection_and_drops_nobody(site: Site) -> None:
    node = site.build()
    server = node.start_server(application_entity(), ("127.0.0.1", 0), block=False)
    assert server is not None
    requestor = AE()
    requestor.add_requested_context("1.2.840.10008.1.1")
    site.ca.write(site.folder, "node")  # the requestor shows the node's own credential
    first = node.associate(requestor, "127.0.0.1", port_of(server))
    site.ca.crl(site.folder / "ca.crl", revoked=[site.client], number=2)
    done = run(["echoscu", *site.dcmtk, "127.0.0.1", str(port_of(server))])
    assert done.returncode
    site.wait_for_audit("revoked")
    assert first.send_c_echo().Status == 0x0000
    first.release()


def test_plain_listener_refuses_secrets(site: Site) -> None:
    (site.folder / "node.toml").write_text(
        '[node]\nplugins = ["identity", "audit"]\n'
        '[[listener]]\nname = "plain"\nprofile = "plain"\nidentity = "not-supported"\n'
    )
    site.node = SecureNode(site.folder / "node.toml")
    server = site.node.start_server(application_entity(), ("127.0.0.1", 0), block=False)
    assert server is not None
    argv = ["storescu", "-usr", "ada", "-pwd", "planted-secret", "127.0.0.1", str(port_of(server))]
    assert run([*argv, CT_SMALL]).returncode
    site.wait_for_audit("Login", "without TLS")
    requestor = AE()
    requestor.add_requested_context("1.2.840.10008.1.1")
    with pytest.raises(ConfigurationError, match="would travel readable"):
        site.node.associate(
            requestor,
            "127.0.0.1",
            port_of(server),
            identity=Claim(IdentityType.PASSCODE, b"ada", b"planted-secret"),
        )
    assert not any("planted-secret" in message for message in site.audit())


def test_requestor_learns_why_the_handshake_failed(site: Site) -> None:
    node = site.build()
    server = node.start_server(application_entity(), ("127.0.0.1", 0), block=False)
    assert server is not None
    requestor = AE()
    requestor.add_requested_context("1.2.840.10008.1.1")
    with pytest.raises(HandshakeRefused) as caught:
        node.associate(requestor, "127.0.0.1", port_of(server), server_name="wrong.example")
    assert caught.value.kind == "wrong name"
    assoc = node.associate(
        requestor, "127.0.0.1", port_of(server), server_name="wrong.example", check_name=False
    )
    assoc.release()


def test_retrieval_an_application_serves_is_instances_accessed(site: Site) -> None:
    """A.5.3.6, with the study that was asked for."""
    model = "1.2.840.10008.5.1.4.1.2.1.3"  # Patient Root Q/R, GET

    def nothing(_: Any) -> Any:
        yield 0

    node = site.build()
    server = node.start_server(
        application_entity(model),
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_GET, nothing)],
    )
    assert server is not None
    requestor = AE()
    requestor.add_requested_context(model)
    assoc = node.associate(requestor, "127.0.0.1", port_of(server))
    query = pydicom.Dataset()
    query.QueryRetrieveLevel, query.PatientID, query.StudyInstanceUID = "STUDY", "P1", "1.2.3.4"
    assert [status.Status for status, _ in assoc.send_c_get(query, model)] == [0x0000]
    assoc.release()
    site.wait_for_audit("DICOM Instances Accessed", "1.2.3.4", "P1")


ENTRY_POINT = """[dicom_secure_node.plugins]
mondays = tests.secure_node.test_embedding:NoMondays
"""


def test_plugin_of_an_entry_point(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "site-packages" / "mondays-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mondays\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINT)
    monkeypatch.syspath_prepend(metadata.parent)
    node = site.build(more='"mondays", ')
    assert "NoMondays" in node.describe()


def test_every_study_is_reported_once_per_association(site: Site) -> None:
    node = site.build(more='"storage", ')
    server = node.start_server(application_entity(), ("127.0.0.1", 0), block=False)
    assert server is not None
    first = pydicom.dcmread(CT_SMALL)
    paths = []
    for study in ("1.2.3.1", "1.2.3.2"):
        for number in range(3):
            first.StudyInstanceUID = study
            first.SOPInstanceUID = first.file_meta.MediaStorageSOPInstanceUID = f"{study}.{number}"
            paths.append(site.folder / f"{study}.{number}.dcm")
            first.save_as(paths[-1])
    port = str(port_of(server))
    for _ in range(2):
        done = run(["storescu", *site.dcmtk, "127.0.0.1", port, *paths])
        assert done.returncode == 0, done.stderr

    def transferred() -> list[str]:
        return [m for m in site.audit() if "DICOM Instances Transferred" in m]

    wait_until(lambda: len(transferred()) == 4, "four messages")
    new = [m for m in transferred() if 'EventActionCode="C"' in m]
    held = [m for m in transferred() if 'EventActionCode="R"' in m]
    assert (len(new), len(held)) == (2, 2)
    assert all('NumberOfInstances="3"' in m for m in transferred())
    assert len([m for m in site.audit() if "Begin Transferring" in m]) == 4
    assert node.archive is not None
    assert list(node.archive.unaudited()) == []
