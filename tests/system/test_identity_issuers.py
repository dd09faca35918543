"""Each type of user identity from a real issuer, by DCMTK, into archive and audit trail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import parts
from tests.certs import Ca
from tests.identity import directory, kdc, oidc, saml_issuers
from tests.loopback import CT_SMALL
from tests.system.running import ALERT, AUTHENTICATION, LOGIN, TRANSFERRED, Node, cli

REQUIRED = {'identity = "supports"': 'identity = "required"'}


@dataclass(frozen=True)
class Way:
    """How one type comes in: TOML of the node, options of storescu, and what must not be told."""

    types: str
    settings: str
    options: Callable[[], list[Any]]
    user: str
    again: str  # what a second use of the same thing is refused for; empty: it is not
    secrets: Callable[[], list[str]]


@contextmanager
def _kerberos(folder: Path) -> Iterator[Way]:
    with kdc.running(folder / "kdc") as site:
        ticket = folder / "ticket"
        ticket.write_bytes(site.ticket())
        settings = f'[identity.kerberos]\nkeytab = "{site.keytab}"\nprincipal = "{kdc.SERVICE}"\n'
        yield Way(
            "kerberos",
            settings,
            lambda: ["-kt", ticket],
            f"ada@{site.realm.name}",
            "",
            lambda: [ticket.read_bytes().hex()[40:80]],
        )


@contextmanager
def _saml(folder: Path) -> Iterator[Way]:
    leaf = Ca().write(folder, "idp", key="rsa")
    with saml_issuers.SimpleSaml(folder / "ssp", leaf, "both") as issuer:
        document = folder / "response.xml"
        document.write_bytes(issuer.response())
        settings = (
            f'[identity.saml]\naudience = "{saml_issuers.AUDIENCE}"\n'
            f'recipients = ["{saml_issuers.CONSUMER}"]\n'
            f'[[identity.saml.issuer]]\nentity_id = "{issuer.entity_id}"\n'
            f'certificate = "{leaf.crt}"\n'
        )
        yield Way(
            "saml",
            settings,
            lambda: ["--saml", document],
            "ada",
            "used",
            lambda: [document.read_text()[-200:-100]],
        )


@contextmanager
def _jwt(folder: Path) -> Iterator[Way]:
    keys = [oidc.private_jwk("one", "RS256")]
    with oidc.Oidc(folder / "oidc", Ca(), keys=keys, users={"ada": ["radiology"]}) as issuer:
        token = folder / "token"
        token.write_bytes(issuer.token("ada", "dicom:node"))
        settings = (
            f'[identity.jwt]\nissuer = "{issuer.issuer}"\naudience = "dicom:node"\n'
            f'jwks = "{issuer.keys_url}"\ntrust = ["{issuer.anchor}"]\none_time = true\n'
        )
        yield Way(
            "jwt",
            settings,
            lambda: ["--jwt", token],
            "ada",
            "used",
            lambda: token.read_text().split("."),
        )


@contextmanager
def _ldap(folder: Path) -> Iterator[Way]:
    ca = Ca()
    anchor = ca.anchor(folder / "directory-ca.crt")
    leaf = ca.write(folder, "directory", usage="server")
    entries = directory.person("ada", "lovelace-1815")
    with directory.Directory(folder / "slapd", anchor, leaf, entries) as slapd:
        service = folder / "service.passcode"
        service.write_text(directory.SERVICE_PASSCODE)
        settings = (
            f'[identity.ldap]\nurls = ["{slapd.url}"]\nbase = "dc=test"\ntrust = ["{anchor}"]\n'
            f'bind_dn = "{directory.SERVICE_DN}"\nbind_passcode_file = "{service}"\n'
        )
        yield Way(
            "passcode",
            settings,
            lambda: ["-usr", "ada", "-pwd", "lovelace-1815"],
            "ada",
            "",
            lambda: ["lovelace-1815", directory.SERVICE_PASSCODE],
        )


WAYS = {
    "B.6 Kerberos, MIT KDC": _kerberos,
    "B.7 SAML, SimpleSAMLphp": _saml,
    "type 5 JWT, oidc-provider": _jwt,
    "B.5 passcode, slapd over StartTLS": _ldap,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_from_the_issuer_through_storescu_into_the_archive(
    way: Any, home: Path, tmp_path: Path
) -> None:
    with way(tmp_path) as made:
        change = {**REQUIRED, 'types = ["passcode"]': f'types = ["{made.types}"]'}
        with Node(home, made.settings, change=change) as node:
            argv = ["storescu", "-v", *node.credential(), *made.options(), "-rsp"]
            where = ["127.0.0.1", str(node.port), CT_SMALL]
            done = parts.run([*argv, *where])
            assert done.returncode == 0, done.stdout + done.stderr
            node.wait_for_audit(
                lambda one: one.kind == LOGIN and one.outcome == 0 and made.user in one.users,
                "the login",
            )
            node.wait_for_audit(
                lambda one: one.event == TRANSFERRED and made.user in one.users, "the transfer"
            )
            assert len(node.kept()) == 1
            refused = parts.run(["storescu", "-v", *node.credential(), *where])
            assert "Rejected Permanent" in refused.stdout + refused.stderr
            if made.again:
                again = parts.run([*argv, *where])
                assert "Rejected Permanent" in again.stdout + again.stderr
                node.wait_for_audit(
                    lambda one: one.event == AUTHENTICATION and made.again in one.words,
                    "the second use",
                )
            told = node.log + "".join(one.xml for one in node.records())
        assert not [secret for secret in made.secrets() if secret in told]


def test_a_user_is_locked_out_and_an_alert_tells(home: Path) -> None:
    added = cli("user", "add", "--home", home, "ada", stdin="right-passcode\n")
    assert added.returncode == 0, added.stderr
    with Node(home, "[identity.lockout]\nfailures = 3\n", change=REQUIRED) as node:
        where = ["127.0.0.1", str(node.port), CT_SMALL]

        def send(passcode: str) -> int:
            argv = ["storescu", *node.credential(), "-usr", "ada", "-pwd", passcode]
            return parts.run([*argv, *where]).returncode

        assert send("right-passcode") == 0
        for _ in range(3):
            assert send("wrong") != 0
        assert send("right-passcode") != 0
        node.wait_for_audit(
            lambda one: one.event == ALERT and "locked after too many" in one.words, "the alert"
        )
        node.wait_for_audit(lambda one: "locked after 3 failures" in one.words, "the reason")
