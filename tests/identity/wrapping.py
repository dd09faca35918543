"""Attacks on signed SAML documents: signature wrapping, and what else has worked somewhere.

The attacker holds a genuine document in which the issuer signed that he is ``ada``, and wants to
be ``eve``. The numbers XSW 1 to 8 are those of the eight wrappings in "On Breaking SAML"
(Somorovsky and others, USENIX Security 2012) as the tool SAML Raider counts them. Those made for
a Response are also turned into forms for a bare assertion, which is what DICOM carries.

`naive_signature` and `naive_users` are how a careless receiver verifies and reads: an attack that
does not deceive them would prove nothing about a careful one.
"""

from __future__ import annotations

import base64
import copy
import zlib
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import XMLVerifier

from tests.identity.saml_issuers import DS, NS, SAML, SAMLP, Element, Mint, new_id

Attack = Callable[[Mint], bytes]
VICTIM = "eve"


def naive_signature(document: bytes, mint: Mint) -> bool:
    """Tell whether a receiver is content that finds some valid signature somewhere."""
    try:
        XMLVerifier().verify(document, x509_cert=mint.leaf.certificate, validate_schema=False)
    except (SignXMLException, etree.LxmlError):
        return False
    return True


def naive_users(document: bytes) -> set[str | None]:
    """Return whom careless receivers take the subject for."""
    root = etree.fromstring(document)
    first = root.find(".//saml:NameID", NS)
    direct = root.find("saml:Subject/saml:NameID", NS)
    within = root.find("saml:Assertion/saml:Subject/saml:NameID", NS)
    return {found.text for found in (first, direct, within) if found is not None}


# -- pieces ------------------------------------------------------------------------------------


def _signature(element: Element) -> Element:
    found = element.find("ds:Signature", NS)
    assert found is not None
    return found


def _bare(element: Element) -> Element:
    """Return a copy without its signature: the very content that was digested."""
    clone = copy.deepcopy(element)
    clone.remove(_signature(clone))
    return clone


def _falsify(element: Element, *, keep_id: bool = False) -> Element:
    """Make `element` say ``eve`` under another ID; it is returned."""
    if not keep_id:
        element.set("ID", new_id())
    for name in element.findall(".//saml:NameID", NS):
        name.text = VICTIM
    for inner in element.findall("saml:Assertion", NS):
        inner.set("ID", new_id())
    return element


def _object(content: Element) -> Element:
    holder = etree.Element(f"{{{DS}}}Object")
    holder.append(content)
    return holder


def _around(mint: Mint) -> tuple[Element, Element]:
    """Return an unsigned Response and the signed assertion in it."""
    response = mint.response(mint.tree(), signed=False)
    assertion = response.find("saml:Assertion", NS)
    assert assertion is not None
    return response, assertion


def resigned(mint: Mint, root: Element, edit: Callable[[Element], Any]) -> bytes:
    """Return `root` signed anew by the issuer's own key after `edit` of its ``ds:Signature``."""
    signature = _signature(root)
    edit(signature)
    info = signature.find("ds:SignedInfo", NS)
    value = signature.find("ds:SignatureValue", NS)
    key = mint.leaf.private_key
    assert info is not None
    assert value is not None
    assert isinstance(key, rsa.RSAPrivateKey)
    octets = etree.tostring(info, method="c14n", exclusive=True)
    signed = key.sign(octets, padding.PKCS1v15(), hashes.SHA256())
    value.text = base64.b64encode(signed).decode()
    return etree.tostring(root)


# -- wrapping ----------------------------------------------------------------------------------


def xsw1(root: Element) -> bytes:
    """The original goes into the signature of the evil document element."""
    original = _bare(root)
    _signature(_falsify(root)).append(original)
    return etree.tostring(root)


def xsw2(root: Element) -> bytes:
    """The original stands before the signature, both in the evil document element."""
    original = _bare(root)
    root.insert(0, original)
    _falsify_around(root, original)
    return etree.tostring(root)


def _falsify_around(root: Element, original: Element) -> None:
    root.remove(original)
    _falsify(root)
    root.insert(0, original)


def xsw3(mint: Mint) -> bytes:
    """An evil assertion stands before the signed one."""
    response, assertion = _around(mint)
    assertion.addprevious(_falsify(_bare(assertion)))
    return etree.tostring(response)


def xsw4(mint: Mint) -> bytes:
    """The signed assertion is a child of the evil one."""
    response, assertion = _around(mint)
    evil = _falsify(_bare(assertion))
    response.replace(assertion, evil)
    evil.append(assertion)
    return etree.tostring(response)


def xsw5(mint: Mint) -> bytes:
    """The evil assertion keeps the signature; what it is over stands behind."""
    response, assertion = _around(mint)
    response.append(_bare(assertion))
    _falsify(assertion)
    return etree.tostring(response)


def xsw6(mint: Mint) -> bytes:
    """As 5, and what was signed is inside the signature."""
    response, assertion = _around(mint)
    original = _bare(assertion)
    _signature(_falsify(assertion)).append(original)
    return etree.tostring(response)


def xsw7(mint: Mint) -> bytes:
    """The evil assertion is in an Extensions element."""
    response, assertion = _around(mint)
    extensions = etree.Element(f"{{{SAMLP}}}Extensions")
    extensions.append(_falsify(_bare(assertion)))
    response.insert(1, extensions)
    return etree.tostring(response)


def xsw8(mint: Mint) -> bytes:
    """The original is in an Object of the evil assertion's signature."""
    response, assertion = _around(mint)
    original = _bare(assertion)
    _signature(_falsify(assertion)).append(_object(original))
    return etree.tostring(response)


def _nested(mint: Mint, holder: str) -> bytes:
    """An evil bare assertion with the signed one in it, within `holder` if that is a name."""
    original = mint.tree()
    evil = _falsify(_bare(original))
    home = etree.SubElement(evil, f"{{{SAML}}}{holder}") if holder else evil
    home.append(original)
    return etree.tostring(evil)


def _hidden_in_object(mint: Mint) -> bytes:
    root = mint.tree()
    original = _bare(root)
    _signature(_falsify(root)).append(_object(original))
    return etree.tostring(root)


def _same_id(mint: Mint, *, evil_first: bool) -> bytes:
    """Two assertions of one ID, so that the reader may find another than the verifier."""
    response, assertion = _around(mint)
    evil = _falsify(_bare(assertion), keep_id=True)
    (assertion.addprevious if evil_first else assertion.addnext)(evil)
    return etree.tostring(response)


#: What deceives the naive receiver: sentence, how it is made, what the refusal says.
WRAPPINGS: dict[str, tuple[Attack, str]] = {
    "XSW 1 on a signed Response": (lambda m: xsw1(m.response()), "2 assertions"),
    "XSW 1 on an assertion": (lambda m: xsw1(m.tree()), "2 assertions"),
    "XSW 2 on a signed Response": (lambda m: xsw2(m.response()), "2 assertions"),
    "XSW 2 on an assertion": (lambda m: xsw2(m.tree()), "2 assertions"),
    "XSW 3": (xsw3, "2 assertions"),
    "XSW 4": (xsw4, "2 assertions"),
    "XSW 4 on an assertion": (lambda m: _nested(m, ""), "2 assertions"),
    "XSW 5": (xsw5, "2 assertions"),
    "XSW 6": (xsw6, "2 assertions"),
    "XSW 7": (xsw7, "2 assertions"),
    "XSW 7 on an assertion, in Advice": (lambda m: _nested(m, "Advice"), "2 assertions"),
    "XSW 8": (xsw8, "2 assertions"),
    "XSW 8 on an assertion": (_hidden_in_object, "2 assertions"),
}

#: The rest: the signature rules, one at a time.
SIGNATURES: dict[str, tuple[Attack, str]] = {}


def _attack(sentence: str, reason: str) -> Callable[[Attack], Attack]:
    def add(function: Attack) -> Attack:
        SIGNATURES[sentence] = (function, reason)
        return function

    return add


_attack("an evil assertion of the same ID, before", "2 elements|2 assertions|same ID")(
    lambda m: _same_id(m, evil_first=True)
)
_attack("an evil assertion of the same ID, behind", "same ID")(
    lambda m: _same_id(m, evil_first=False)
)


@_attack("an attribute xml:id with the assertion's ID", "same ID")
def _xml_id(mint: Mint) -> bytes:
    root = mint.tree()
    root[-1].set("{http://www.w3.org/XML/1998/namespace}id", root.get("ID") or "")
    return etree.tostring(root)


@_attack("no signature", "saml:Assertion is not signed")
def _unsigned(mint: Mint) -> bytes:
    return mint.text().encode()


@_attack("a Response that is not signed around an assertion that is", "Response itself is not")
def _unsigned_around(mint: Mint) -> bytes:
    return etree.tostring(mint.response(mint.tree(), signed=False))


@_attack("a Response and an assertion that are not signed", "samlp:Response is not signed")
def _nothing_signed(mint: Mint) -> bytes:
    return etree.tostring(mint.response(signed=False))


@_attack("another name in what was signed", "content was changed")
def _changed(mint: Mint) -> bytes:
    return etree.tostring(_falsify(mint.tree(), keep_id=True))


@_attack("a changed digest in SignedInfo", "not by the issuer's key")
def _other_digest(mint: Mint) -> bytes:
    root = mint.tree()
    value = root.find(".//ds:DigestValue", NS)
    assert value is not None
    value.text = base64.b64encode(bytes(32)).decode()
    return etree.tostring(root)


@_attack("the signature of another assertion", "refers to something else")
def _transplanted(mint: Mint) -> bytes:
    other, root = mint.tree(), mint.with_(user=VICTIM).tree()
    root.replace(_signature(root), _signature(other))
    return etree.tostring(root)


@_attack("a signature with RSA-SHA1", "rsa-sha1")
def _sha1(mint: Mint) -> bytes:
    return mint.with_(signature=SignatureMethod.RSA_SHA1).assertion()


@_attack("a digest with SHA-1", "digest algorithm .*sha1")
def _sha1_digest(mint: Mint) -> bytes:
    return mint.with_(digest=DigestAlgorithm.SHA1).assertion()


@_attack("HMAC keyed with the issuer's public certificate", "hmac-sha256")
def _hmac(mint: Mint) -> bytes:
    return mint.with_(signature=SignatureMethod.HMAC_SHA256).assertion()


@_attack("a signature algorithm nobody knows", "signature algorithm 'urn:x'")
def _unknown_method(mint: Mint) -> bytes:
    return resigned(mint, mint.tree(), lambda s: s[0][1].set("Algorithm", "urn:x"))


@_attack("an RSA signature cut to no bits by HMACOutputLength", "signature algorithm")
def _output_length(mint: Mint) -> bytes:
    def edit(signature: Element) -> None:
        etree.SubElement(signature[0][1], f"{{{DS}}}HMACOutputLength").text = "0"

    return resigned(mint, mint.tree(), edit)


@_attack("an empty reference, to the whole document", "refers to something else")
def _empty_reference(mint: Mint) -> bytes:
    return resigned(mint, mint.tree(), lambda s: s[0][2].set("URI", ""))


@_attack("a reference without URI", "refers to something else")
def _no_reference(mint: Mint) -> bytes:
    return resigned(mint, mint.tree(), lambda s: s[0][2].attrib.pop("URI"))


@_attack("a reference with two hashes", "refers to something else")
def _two_hashes(mint: Mint) -> bytes:
    root = mint.tree()
    return resigned(mint, root, lambda s: s[0][2].set("URI", f"##{root.get('ID')}"))


@_attack("a reference to a file of ours", "refers to something else")
def _file_reference(mint: Mint) -> bytes:
    return resigned(mint, mint.tree(), lambda s: s[0][2].set("URI", "file:///etc/passwd"))


@_attack("a reference to the NameID only", "refers to something else")
def _part_reference(mint: Mint) -> bytes:
    root = etree.fromstring(mint.text())
    name = root.find(".//saml:NameID", NS)
    assert name is not None
    name.set("ID", "_name")
    signed = mint.sign(root)
    return resigned(mint, signed, lambda s: s[0][2].set("URI", "#_name"))


@_attack("two references", "2 elements Reference")
def _two_references(mint: Mint) -> bytes:
    return resigned(mint, mint.tree(), lambda s: s[0].append(copy.deepcopy(s[0][2])))


@_attack("two signatures", "more than the signature")
def _two_signatures(mint: Mint) -> bytes:
    root = mint.tree()
    root.append(copy.deepcopy(_signature(root)))
    return etree.tostring(root)


@_attack("a signature deep in the assertion beside its own", "more than the signature")
def _deep_signature(mint: Mint) -> bytes:
    root = mint.tree()
    root[-1].append(copy.deepcopy(_signature(root)))
    return etree.tostring(root)


@_attack("an Object in the signature", "other elements")
def _object_in_signature(mint: Mint) -> bytes:
    root = mint.tree()
    _signature(root).append(_object(etree.Element("x")))
    return etree.tostring(root)


def _with_transform(algorithm: str, content: str = "") -> Attack:
    """The issuer's own key signs, and the signature leaves out or rewrites what is read."""

    def make(mint: Mint) -> bytes:
        def edit(signature: Element) -> None:
            added = etree.SubElement(signature[0][2][0], f"{{{DS}}}Transform")
            added.set("Algorithm", algorithm)
            if content:
                added.append(etree.fromstring(content))

        return resigned(mint, mint.tree(), edit)

    return make


for _name, _algorithm, _content in (
    ("XPath", "http://www.w3.org/TR/1999/REC-xpath-19991116", f'<XPath xmlns="{DS}">0</XPath>'),
    ("XPath filter 2", "http://www.w3.org/2002/06/xmldsig-filter2", ""),
    (
        "XSLT",
        "http://www.w3.org/TR/1999/REC-xslt-19991116",
        '<x:stylesheet version="1.0" xmlns:x="http://www.w3.org/1999/XSL/Transform"/>',
    ),
    ("base64", f"{DS}base64", ""),
    ("inclusive canonicalisation", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315", ""),
):
    _attack(f"a further transform, {_name}", "transforms what it signs")(
        _with_transform(_algorithm, _content)
    )


@_attack("no transform at all", "other elements")
def _no_transform(mint: Mint) -> bytes:
    return resigned(mint, mint.tree(), lambda s: s[0][2].remove(s[0][2][0]))


@_attack("an unknown canonicalisation of SignedInfo", "canonicalisation 'urn:x'")
def _canonicalisation(mint: Mint) -> bytes:
    return resigned(mint, mint.tree(), lambda s: s[0][0].set("Algorithm", "urn:x"))


@_attack("XPath in place of the canonicalisation", "transforms what it signs")
def _xpath_only(mint: Mint) -> bytes:
    xpath = "http://www.w3.org/TR/1999/REC-xpath-19991116"
    return resigned(mint, mint.tree(), lambda s: s[0][2][0][1].set("Algorithm", xpath))


@_attack("a signature value that is no base64", "cannot be processed")
def _garbled(mint: Mint) -> bytes:
    root = mint.tree()
    _signature(root)[1].text = "planted-garbage!"
    return etree.tostring(root)


# -- markup ------------------------------------------------------------------------------------

#: Names that two programs read differently, and bombs.
MARKUP: dict[str, tuple[Attack, str]] = {}


def _split(mark: str) -> Attack:
    """The issuer signed ``eve.example``; canonical XML does not see what `mark` adds."""

    def make(mint: Mint) -> bytes:
        text = mint.with_(user=f"{VICTIM}.example").assertion().decode()
        return text.replace(f"{VICTIM}.example", f"{VICTIM}{mark}.example").encode()

    return make


def _prefixed(prefix: str, name: str = "") -> Attack:
    def make(mint: Mint) -> bytes:
        text = mint.assertion().decode()
        return (prefix + (text.replace(">ada<", f">{name}<") if name else text)).encode()

    return make


_LAUGHS = '<!DOCTYPE l [<!ENTITY a0 "ha">' + "".join(
    f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(12)
)

MARKUP |= {
    "a comment in the name": (_split("<!---->"), "found a comment"),
    "a processing instruction in the name": (_split("<?x y?>"), "processing instruction"),
    "a CDATA section in the name": (_split("<![CDATA[]]>"), "found a CDATA section"),
    "an element in the name": (_split("<b/>"), "content was changed"),
    "an element in the name, signed": (
        lambda m: m.with_(name_id=f"<saml:NameID>{VICTIM}<saml:x/>.b</saml:NameID>").assertion(),
        "saml:NameID holds elements",
    ),
    "a comment before the assertion": (_prefixed("<!-- x -->"), "found a comment"),
    "a DOCTYPE": (_prefixed("<!DOCTYPE x>"), "found a DOCTYPE"),
    "an entity for the name": (
        _prefixed('<!DOCTYPE x [<!ENTITY n "eve">]>', "&n;"),
        "found a DOCTYPE",
    ),
    "an external entity": (
        _prefixed('<!DOCTYPE x [<!ENTITY n SYSTEM "file:///etc/passwd">]>', "&n;"),
        "found a DOCTYPE",
    ),
    "an external DTD": (_prefixed('<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x">'), "DOCTYPE"),
    "a bomb of entities": (_prefixed(f"{_LAUGHS}]>", "&a12;"), "found a DOCTYPE"),
    "a DOCTYPE behind an XML declaration": (
        _prefixed('<?xml version="1.0"?>\n<!DOCTYPE x>'),
        "found a DOCTYPE",
    ),
    "a stylesheet": (_prefixed('<?xml-stylesheet href="x"?>'), "processing instruction"),
    "an entity nobody declared": (_prefixed("", "&n;"), "not well-formed"),
    "UTF-7 declared, and a DOCTYPE in it": (
        lambda m: b'<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-DOCTYPE x+AD4-' + m.assertion(),
        "not well-formed",
    ),
    "UTF-16": (lambda m: m.assertion().decode().encode("utf-16"), "found UTF-16 text"),
    "UTF-16 without a mark": (
        lambda m: m.assertion().decode().encode("utf-16-le"),
        "not well-formed",
    ),
    "Latin-1": (
        lambda m: m.with_(user="adé").assertion().decode().replace("&#233;", "é").encode("latin1"),
        "not UTF-8",
    ),
    "base64": (lambda m: base64.b64encode(m.assertion()), "found base64 text"),
    "deflated, as for a redirect": (
        lambda m: zlib.compress(m.assertion(), wbits=-15),
        "found compressed data",
    ),
    "gzip": (lambda m: zlib.compress(m.assertion(), wbits=31), "found compressed data"),
    "a deflate bomb": (
        lambda _: zlib.compress(b"<" + bytes(50_000_000), 9, wbits=-15),
        "found compressed data",
    ),
    "nothing": (lambda _: b"", "found nothing"),
    "white space": (lambda _: b" \r\n", "found nothing"),
    "a user name": (lambda _: b"ada, the first", "no XML"),
    "half an assertion": (lambda m: m.assertion()[:-20], "not well-formed"),
    "two documents": (lambda m: m.assertion() * 2, "not well-formed"),
    "more than the field can hold": (
        lambda m: m.with_(attributes={"x": ["y" * 66_000]}).assertion(),
        "wanted at most 65535",
    ),
    "a thousand levels": (
        lambda m: m.with_(more_attributes="<a>" * 1000 + "</a>" * 1000).text().encode(),
        "not well-formed|levels",
    ),
    "fifty levels": (
        lambda m: m.with_(more_attributes="<a>" * 50 + "</a>" * 50).text().encode(),
        "more than 32 levels",
    ),
    "ten thousand elements": (
        lambda m: m.with_(more_attributes="<a/>" * 10_000).text().encode(),
        "more than 2000 elements",
    ),
    "a thousand namespaces": (
        lambda m: (
            m.with_(more_attributes="".join(f'<a xmlns:n{n}="u:{n}"/>' for n in range(1000)))
            .text()
            .encode()
        ),
        "more than 200 namespace",
    ),
}
