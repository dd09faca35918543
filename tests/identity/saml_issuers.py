"""Issuers of SAML assertions for the tests: our own mint, pysaml2, SimpleSAMLphp.

The mint makes whatever a test asks for, right or wrong. The other two are real: pysaml2 in this
process (it runs the program xmlsec1), SimpleSAMLphp under PHP's own web server, logged in to as a
browser would.
"""

from __future__ import annotations

import base64
import html
import http.cookiejar
import re
import secrets
import urllib.parse
import urllib.request
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
from signxml.signer import XMLSigner

from dicom_secure_node.identity.saml import Issuer, load_issuer
from tests.certs import Ca, Leaf
from tests.parts import Part, free_port, listening

SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
DS = "http://www.w3.org/2000/09/xmldsig#"
NS = {"saml": SAML, "samlp": SAMLP, "ds": DS}

AUDIENCE = "dicom:PACS1"
CONSUMER = "http://pacs1.test/acs"  # SimpleSAMLphp posts to nothing but http
MINT = "https://mint.test/idp"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
HOLDER = "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
SECRET = "planted-diagnosis-of-the-bearer"  # an attribute value nobody may log

Element = etree._Element


class OldSigner(XMLSigner):
    """Signs also with what nobody should use any more."""

    def check_deprecated_methods(self) -> None:
        """Object to nothing."""


def stamp(moment: datetime) -> str:
    """Return a SAML time."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True)
class Mint:
    """An issuer that signs anything.

    Each attribute but the first three is a piece of XML or a value of the assertion to be made;
    `with_` gives a mint that differs in some.
    """

    leaf: Leaf
    entity_id: str = MINT
    now: datetime = NOW
    user: str = "ada"
    number: str = ""
    version: str = "2.0"
    issued: datetime | None = None
    name_id: str | None = None
    not_before: str | None = ""
    not_on_or_after: str | None = ""
    audiences: Sequence[Sequence[str]] = ((AUDIENCE,),)
    more_conditions: str = ""
    method: str = BEARER
    data: str | None = None
    data_content: str = ""
    confirmations: str | None = None
    authentication: str = ""
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    more_attributes: str = ""
    signature: SignatureMethod = SignatureMethod.RSA_SHA256
    digest: DigestAlgorithm = DigestAlgorithm.SHA256
    canonical: CanonicalizationMethod = CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0

    def with_(self, **changes: Any) -> Mint:
        """Return another mint."""
        return replace(self, **changes)

    @property
    def issuer(self) -> Issuer:
        """The issuer as a node is told of it."""
        return Issuer(self.entity_id, (self.leaf.certificate,))

    def text(self) -> str:
        """Return an assertion that is not signed."""
        end = stamp(self.now + timedelta(minutes=5))
        period = ""
        if self.not_before is not None:
            period += f' NotBefore="{self.not_before or stamp(self.now - timedelta(seconds=30))}"'
        if self.not_on_or_after is not None:
            period += f' NotOnOrAfter="{self.not_on_or_after or end}"'
        restrictions = "".join(
            "<saml:AudienceRestriction>"
            + "".join(f"<saml:Audience>{one}</saml:Audience>" for one in audiences)
            + "</saml:AudienceRestriction>"
            for audiences in self.audiences
        )
        data = f'NotOnOrAfter="{end}" Recipient="{AUDIENCE}"' if self.data is None else self.data
        confirmations = self.confirmations
        if confirmations is None:
            confirmations = (
                f'<saml:SubjectConfirmation Method="{self.method}"><saml:SubjectConfirmationData '
                f"{data}>{self.data_content}</saml:SubjectConfirmationData>"
                "</saml:SubjectConfirmation>"
            )
        name_id = self.name_id
        if name_id is None:
            name_id = f"<saml:NameID>{html.escape(self.user)}</saml:NameID>"
        return (
            f'<saml:Assertion xmlns:saml="{SAML}" ID="{self.number or new_id()}" '
            f'Version="{self.version}" IssueInstant="{stamp(self.issued or self.now)}">'
            f"<saml:Issuer>{self.entity_id}</saml:Issuer>"
            f"<saml:Subject>{name_id}{confirmations}</saml:Subject>"
            f"<saml:Conditions{period}>{restrictions}{self.more_conditions}</saml:Conditions>"
            f"{self.authentication}{self._statement()}</saml:Assertion>"
        )

    def _statement(self) -> str:
        given = {"diagnosis": (SECRET,), **self.attributes}
        listed = "".join(
            f'<saml:Attribute Name="{name}">'
            + "".join(f"<saml:AttributeValue>{one}</saml:AttributeValue>" for one in values)
            + "</saml:Attribute>"
            for name, values in given.items()
        )
        return f"<saml:AttributeStatement>{listed}{self.more_attributes}</saml:AttributeStatement>"

    def tree(self) -> Element:
        """Return a signed assertion."""
        return self.sign(etree.fromstring(self.text()))

    def assertion(self) -> bytes:
        """Return a signed assertion as it is sent."""
        return etree.tostring(self.tree())

    def response(
        self,
        assertion: Element | None = None,
        *,
        signed: bool = True,
        status: str = SUCCESS,
        destination: str = AUDIENCE,
        issuer: str = "",
        more: str = "",
    ) -> Element:
        """Return a Response around `assertion` (a new one, unsigned, where left out)."""
        root = etree.fromstring(
            f'<samlp:Response xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}" ID="{new_id()}" '
            f'Version="2.0" IssueInstant="{stamp(self.now)}" Destination="{destination}">'
            f"<saml:Issuer>{issuer or self.entity_id}</saml:Issuer>{more}<samlp:Status>"
            f'<samlp:StatusCode Value="{status}"/></samlp:Status></samlp:Response>'
        )
        root.append(etree.fromstring(self.text()) if assertion is None else assertion)
        return self.sign(root) if signed else root

    def sign(self, root: Element) -> Element:
        """Return `root` with an enveloped signature after its Issuer."""
        place = etree.Element(f"{{{DS}}}Signature", {"Id": "placeholder"}, nsmap={"ds": DS})
        root.insert(1, place)
        signer = OldSigner(
            signature_algorithm=self.signature,
            digest_algorithm=self.digest,
            c14n_algorithm=self.canonical,
        )
        options: dict[str, Any] = {"key": self.leaf.private_key, "cert": [self.leaf.certificate]}
        if "HMAC" in self.signature.name:  # the key everybody knows: our certificate
            options = {"key": self.leaf.certificate.public_bytes(Encoding.PEM)}
        return signer.sign(root, reference_uri=f"#{root.get('ID')}", id_attribute="ID", **options)


def new_id() -> str:
    """Return an XML identifier nobody has used."""
    return f"_{secrets.token_hex(16)}"


def wrong_key(ca: Ca, folder: Path) -> Leaf:
    """Return a credential that is not the issuer's, of the same name."""
    return ca.write(folder / "foreign", "idp", key="rsa3072")


# -- pysaml2 -----------------------------------------------------------------------------------

PYSAML = "https://pysaml2.test/idp"
_PYSAML_SP = (
    f'<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{AUDIENCE}">'
    f'<md:SPSSODescriptor protocolSupportEnumeration="{SAMLP}"><md:AssertionConsumerService '
    f'Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="{AUDIENCE}" index="0"/>'
    "</md:SPSSODescriptor></md:EntityDescriptor>"
)


@contextmanager
def _program(path: str, package: str) -> Any:
    if not Path(path).exists():
        pytest.fail(f"{path} is missing: apt-get install {package}", pytrace=False)
    yield path


def pysaml2_document(leaf: Leaf, user: str, *, sign: str = "assertion") -> tuple[Issuer, bytes]:
    """Return pysaml2 as an issuer and what it says of `user`: an assertion, or a Response."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own imports
        import saml2.saml
        from saml2.config import IdPConfig
        from saml2.server import Server

    with _program("/usr/bin/xmlsec1", "xmlsec1") as xmlsec:
        configuration = IdPConfig().load(
            {
                "entityid": PYSAML,
                "key_file": str(leaf.key),
                "cert_file": str(leaf.crt),
                "xmlsec_binary": xmlsec,
                "metadata": {"inline": [_PYSAML_SP]},
                "service": {
                    "idp": {
                        "endpoints": {"single_sign_on_service": [("https://pysaml2.test/sso",)]},
                        "policy": {"default": {"lifetime": {"minutes": 5}}},
                    }
                },
            }
        )
        server = Server(config=configuration)
        name = saml2.saml.NameID(format=saml2.saml.NAMEID_FORMAT_PERSISTENT, text=user)
        response = server.create_authn_response(
            {"groups": ["radiology", "on call"]},
            in_response_to="none",
            destination=AUDIENCE,
            sp_entity_id=AUDIENCE,
            name_id=name,
            authn={"class_ref": saml2.saml.AUTHN_PASSWORD, "authn_auth": PYSAML},
            sign_assertion=sign == "assertion",
            sign_response=sign == "response",
            sign_alg=SignatureMethod.RSA_SHA256.value,
            digest_alg=DigestAlgorithm.SHA256.value,
        )
    text = str(response).encode()
    if sign == "assertion":
        text = cut_assertion(text)
    return load_issuer(PYSAML, leaf.crt), text


def cut_assertion(response: bytes) -> bytes:
    """Return the assertion in a Response, as a document of its own."""
    found = etree.fromstring(response).find(f"{{{SAML}}}Assertion")
    assert found is not None
    return etree.tostring(found, method="c14n", exclusive=True)


# -- SimpleSAMLphp -----------------------------------------------------------------------------

_SSP_CONFIG = """<?php
$config = [
    'baseurlpath' => 'http://127.0.0.1:{port}/',
    'certdir' => '{folder}/',
    'metadatadir' => '{folder}/metadata/',
    'loggingdir' => '{folder}/',
    'datadir' => '{folder}/',
    'tempdir' => '{folder}/tmp',
    'logging.handler' => 'stderr',
    'secretsalt' => 'only-for-tests',
    'auth.adminpassword' => 'only-for-tests',
    'technicalcontact_email' => 'na@example.org',
    'timezone' => 'UTC',
    'enable.saml20-idp' => true,
    'module.enable' => ['exampleauth' => true, 'saml' => true, 'core' => true],
    'store.type' => 'phpsession',
    'session.cookie.secure' => false,
    'session.phpsession.savepath' => '{folder}/tmp',
    'metadata.sources' => [['type' => 'flatfile']],
];
"""

_SSP_SOURCES = """<?php
$config = ['people' => ['exampleauth:UserPass',
    'ada:lovelace-passcode' => ['uid' => ['ada'], 'groups' => ['radiology', 'on call']],
]];
"""

_SSP_IDP = """<?php
$metadata['{entity_id}'] = [
    'host' => '__DEFAULT__',
    'privatekey' => 'idp.key',
    'certificate' => 'idp.crt',
    'auth' => 'people',
    'signature.algorithm' => 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256',
    'NameIDFormat' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent',
    'authproc' => [3 => [
        'class' => 'saml:AttributeNameID', 'attribute' => 'uid',
        'identifyingAttribute' => 'uid',
        'Format' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent',
    ]],
];
"""

_SSP_SP = """<?php
$metadata['{audience}'] = [
    'AssertionConsumerService' => '{consumer}',
    'saml20.sign.response' => {response},
    'saml20.sign.assertion' => {assertion},
];
"""


class SimpleSaml:
    """SimpleSAMLphp with one user, ``ada``; a context manager.

    Parameters
    ----------
    folder : Path
        Of its own.
    leaf : Leaf
        RSA; its signing key.
    sign : str
        ``assertion``, ``response`` or ``both``.
    """

    def __init__(self, folder: Path, leaf: Leaf, sign: str) -> None:
        folder.mkdir(parents=True)
        (folder / "metadata").mkdir()
        (folder / "tmp").mkdir()
        self.port = free_port()
        self.entity_id = f"http://127.0.0.1:{self.port}/idp"
        self.issuer = load_issuer(self.entity_id, leaf.crt)
        values = {
            "port": self.port,
            "folder": folder,
            "entity_id": self.entity_id,
            "audience": AUDIENCE,
            "consumer": CONSUMER,
            "response": "true" if sign in ("response", "both") else "false",
            "assertion": "true" if sign in ("assertion", "both") else "false",
        }
        for name, text in {
            "config.php": _SSP_CONFIG,
            "authsources.php": _SSP_SOURCES,
            "metadata/saml20-idp-hosted.php": _SSP_IDP,
            "metadata/saml20-sp-remote.php": _SSP_SP,
        }.items():
            for key, value in values.items():
                text = text.replace(f"{{{key}}}", str(value))
            (folder / name).write_text(text)
        (folder / "idp.key").write_bytes(leaf.key.read_bytes())
        (folder / "idp.crt").write_bytes(leaf.crt.read_bytes())
        for path, package in {
            "/usr/bin/php": "php-cli",
            "/usr/share/simplesamlphp/www": "simplesamlphp",
        }.items():
            with _program(path, package):
                pass
        self._part = Part(
            [
                *("/usr/bin/php", "-d", "error_reporting=0"),
                *("-S", f"127.0.0.1:{self.port}", "-t", "/usr/share/simplesamlphp/www"),
            ],
            log=folder / "log",
            port=self.port,
            ready=lambda: listening(self.port),
            env={"SIMPLESAMLPHP_CONFIG_DIR": str(folder), "PATH": "/usr/bin:/bin"},
        )

    def __enter__(self) -> SimpleSaml:
        self._part.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self._part.__exit__(*details)

    def response(self) -> bytes:
        """Log in as ``ada`` and return the Response meant for the service provider."""
        jar = http.cookiejar.CookieJar()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        start = f"http://127.0.0.1:{self.port}/saml2/idp/SSOService.php?" + urllib.parse.urlencode(
            {"spentityid": AUDIENCE}
        )
        with browser.open(start, timeout=20) as page:
            address, form = page.geturl(), page.read().decode()
        state = _field(form, "AuthState")
        fields = {"username": "ada", "password": "lovelace-passcode", "AuthState": state}
        data = urllib.parse.urlencode(fields).encode()
        with browser.open(address.partition("?")[0], data, timeout=20) as page:
            return base64.b64decode(_field(page.read().decode(), "SAMLResponse"))


def _field(form: str, name: str) -> str:
    tag = re.search(rf'<input[^>]*name="{name}"[^>]*>', form)
    value = re.search(r'value="([^"]*)"', tag.group(0)) if tag else None
    assert value, f"no field {name} in:\n{form[:2000]}"
    return html.unescape(value.group(1))
