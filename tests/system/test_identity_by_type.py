"""Each type of user identity demanded by itself, of everybody and of single calling AE titles."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import parts
from tests.identity import kdc
from tests.loopback import CT_SMALL
from tests.system.running import LOGIN, TRANSFERRED, Node, cli

PASSCODE = "correct horse battery"
DEMANDS = """identity = { kerberos = "required", passcode = "supports" }
identity_for.CT1 = "not-supported"
identity_for.CONSOLE = { passcode = "required", saml = "required" }
identity_for.RIS = { username = "required", passcode = "supports" }
identity_for.GUEST = { kerberos = "supports", passcode = "supports" }
"""


@dataclass(frozen=True)
class Ward:
    """A node, and what its peers can send: options of storescu by name."""

    node: Node
    identities: dict[str, list[str]]
    ada: str  # what her ticket says

    def store(self, title: str, identity: str) -> tuple[bool, str]:
        """Have storescu store as `title`; return whether it could, and what it said."""
        argv = ["storescu", "-v", *self.node.credential(), "-aet", title]
        argv += [*self.identities[identity], "127.0.0.1", str(self.node.port), str(CT_SMALL)]
        done = parts.run(argv)
        return done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def ward(template_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("types")
    home = Path(shutil.copytree(template_home, folder / "home"))
    added = cli("user", "add", "--home", home, "grace", stdin=PASSCODE + "\n")
    assert added.returncode == 0, added.stderr
    with kdc.running(folder / "kdc") as site:
        ticket, forged = folder / "ticket", folder / "forged"
        ticket.write_bytes(site.ticket())
        forged.write_bytes(site.ticket(cache=site.cyd))
        settings = (
            f'[identity.kerberos]\nkeytab = "{site.keytab}"\nprincipal = "{kdc.SERVICE}"\n'
            '[identity.saml]\naudience = "https://node.test"\n[[identity.saml.issuer]]\n'
            f'entity_id = "https://idp.test"\ncertificate = "{home}/pki/ca.crt"\n'
        )
        identities = {
            "nothing": [],
            "a ticket": ["-kt", str(ticket)],
            "a forged ticket": ["-kt", str(forged)],
            "a passcode": ["-usr", "grace", "-pwd", PASSCODE],
            "a wrong passcode": ["-usr", "grace", "-pwd", "wrong"],
            "a name": ["-usr", "grace"],
        }
        with Node(home, settings, change={'identity = "supports"': DEMANDS}) as node:
            yield Ward(node, identities, f"ada@{site.realm.name}")
    assert PASSCODE not in node.log


SERVED = {
    # calling AE title, what it sends, who it is then (empty: nobody)
    "required of everybody, and sent": ("WS1", "a ticket", "ada"),
    "a modality that can send nothing": ("CT1", "nothing", ""),
    "a modality of which nothing is looked at": ("CT1", "a wrong passcode", ""),
    "one of two types required": ("CONSOLE", "a passcode", "grace"),
    "B.4 a name where one is required": ("RIS", "a name", "grace"),
    "B.4 a name with its passcode": ("RIS", "a passcode", "grace"),
    "nothing where nothing is required": ("GUEST", "nothing", ""),
    "what is supported": ("GUEST", "a passcode", "grace"),
}


@pytest.mark.parametrize("case", SERVED)
def test_served(case: str, ward: Ward) -> None:
    title, identity, user = SERVED[case]
    who = ward.ada if user == "ada" else user
    transfers = len(ward.node.records(TRANSFERRED))
    stored, said = ward.store(title, identity)
    assert stored, said
    ward.node.wait_for_audit(
        lambda one: one.event == TRANSFERRED and len(ward.node.records(TRANSFERRED)) > transfers
    )
    last = ward.node.records(TRANSFERRED)[-1]
    assert title in last.xml
    assert not {"grace", ward.ada} - {who} & set(last.users)
    assert not who or who in last.users


REFUSED = {
    # calling AE title, what it sends, the reason in the audit trail
    "nothing sent": ("WS2", "nothing", "no user identity was sent and one is required"),
    "supported is not what is required": (
        "WS3", "a passcode", "type passcode was sent, wanted kerberos",
    ),
    "the type required, and wrong": ("WS4", "a forged ticket", "Kerberos: "),
    "another AE title's type": (
        "CONSOLE", "a ticket", "type kerberos was sent, wanted passcode or saml",
    ),
    "B.4 a name where a passcode is required": (
        "CONSOLE", "a name", "type username was sent, wanted passcode or saml",
    ),
    "B.4 a name is required, and the passcode with it is wrong": (
        "RIS", "a wrong passcode", "wrong passcode",
    ),
    "supported, and wrong": ("GUEST", "a wrong passcode", "wrong passcode"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, ward: Ward) -> None:
    title, identity, reason = REFUSED[case]
    stored, said = ward.store(title, identity)
    assert not stored
    assert "Rejected Permanent" in said
    found = ward.node.wait_for_audit(  # one of each reason: more within a minute are summed up
        lambda one: one.kind == LOGIN and one.outcome == 8 and reason in one.words, case
    )
    assert PASSCODE not in found.xml
    ward.node.wait_for_log(f"'{title}'", "refused: ", reason)


def test_the_log_says_what_is_demanded(ward: Ward) -> None:
    ward.node.wait_for_log(
        "user identity (", ": passcode supported, kerberos required with exceptions for CT1 CONSOLE"
    )
