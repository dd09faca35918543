"""``pki``: a small local authority, requests for another one, and a look at certificates."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from dicom_secure_node.commands import Subparsers
from dicom_secure_node.commands.output import emit_json, one_line
from dicom_secure_node.errors import ConfigurationError, InvalidCertificate
from dicom_secure_node.pki.authority import LocalAuthority, local_hosts, utc_now
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.describe import Description, describe, usable_for
from dicom_secure_node.pki.files import read_certificates, read_crls
from dicom_secure_node.pki.names import fingerprint, subject_alternatives

_EXAMPLES = """examples:
  dicom-secure-node pki init                                  ./secure-node/pki with ca, node, node-ec, client
  dicom-secure-node pki issue ct1 --host ct1.example.org      a certificate for a modality
  dicom-secure-node pki request node --host pacs.example.org  a request for the hospital's own CA
  dicom-secure-node pki revoke ct1                            on pki/ca.crl from now on
  dicom-secure-node pki show                                  every certificate of the home
"""  # noqa: E501 (one command a line)


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``pki`` and its actions."""
    parser = subparsers.add_parser(
        "pki",
        help="a small certification authority for labs and first steps",
        description="A small certification authority for labs and first steps. Its key lies in "
        "a plain file: use the hospital's own authority for production (pki request).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    init = _action(actions, "init", "make the authority and a node's first certificates")
    init.add_argument("--organisation", default="DICOM secure node", help="in every subject")
    _add_hosts(init)

    issue = _action(actions, "issue", "make a key and a certificate")
    _add_leaf(issue)
    issue.add_argument("--days", type=int, default=825, help="validity (default 825)")
    issue.add_argument(
        "--renew",
        action="store_true",
        help="replace an existing pair; names, usage and kind of key stay unless given",
    )

    request = _action(actions, "request", "make a key and a request for another authority")
    _add_leaf(request)
    request.add_argument("--organisation", default="DICOM secure node", help="in the subject")

    revoke = _action(actions, "revoke", "take a certificate back and rewrite ca.crl")
    revoke.add_argument("name", metavar="NAME", help="of pki/NAME.crt, or a certificate file")

    show = _action(actions, "show", "tell what certificates say")
    show.add_argument(
        "files", metavar="FILE", nargs="*", type=Path, help="default: all of the home"
    )


def run(args: argparse.Namespace) -> int:
    """Do the action and return the exit code."""
    authority = LocalAuthority(args.home / "pki")
    match args.action:
        case "init":
            return _init(authority, args)
        case "issue":
            return _issue(authority, args)
        case "request":
            return _request(authority, args)
        case "revoke":
            return _revoke(authority, args)
    return _show(authority, args)


def _action(
    actions: Subparsers[argparse.ArgumentParser], name: str, words: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
    parser.add_argument(
        "--home",
        type=Path,
        default=Path("secure-node"),
        metavar="DIR",
        help="home of the node, files in DIR/pki (default ./secure-node)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser


def _add_hosts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        action="append",
        metavar="NAME",
        help="DNS name or IP address peers connect to, repeatable (default: this machine)",
    )


def _add_leaf(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the files and in the subject")
    parser.add_argument("--key", choices=("rsa", "ec"), help="2048 bits (default), or P-256")
    parser.add_argument(
        "--usage", choices=("node", "client"), help="a node (default) serves and connects"
    )
    _add_hosts(parser)


def _init(authority: LocalAuthority, args: argparse.Namespace) -> int:
    authority.create(args.organisation)
    for name in ("ca", *authority.equip(args.host or local_hosts())):
        _report_pair(authority, name, args.json)
    return 0


def _issue(authority: LocalAuthority, args: argparse.Namespace) -> int:
    old = authority.folder / f"{args.name}.crt"
    before = _leaf_of(old) if args.renew and old.exists() else {}
    authority.issue(
        args.name,
        key=args.key or before.get("key", "rsa"),
        hosts=args.host or before.get("hosts") or local_hosts(),
        usage=args.usage or before.get("usage", "node"),
        days=args.days,
        renew=args.renew,
    )
    _report_pair(authority, args.name, args.json)
    return 0


def _leaf_of(path: Path) -> dict[str, Any]:
    """Return what an existing certificate was made with."""
    certificate = read_certificates(path)[0]
    dns, addresses, _ = subject_alternatives(certificate)
    is_rsa = isinstance(certificate.public_key(), rsa.RSAPublicKey)
    return {
        "key": "rsa" if is_rsa else "ec",
        "hosts": (*dns, *map(str, addresses)),
        "usage": "node" if "server" in usable_for(certificate) else "client",
    }


def _report_pair(authority: LocalAuthority, name: str, as_json: bool) -> None:
    path = authority.folder / f"{name}.crt"
    certificate = read_certificates(path)[0]
    facts = {
        "name": name,
        "certificate": path,
        "key": authority.folder / f"{name}.key",
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "fingerprint": fingerprint(certificate),
    }
    _report(facts, f"made {path} and {path.with_suffix('.key').name}", as_json)


def _request(authority: LocalAuthority, args: argparse.Namespace) -> int:
    authority.request(
        args.name,
        key=args.key or "rsa",
        hosts=args.host or local_hosts(),
        usage=args.usage or "node",
        organisation=args.organisation,
    )
    path = authority.folder / f"{args.name}.csr"
    words = f"made {path} and {args.name}.key; put the answer beside them as {args.name}.crt"
    key = authority.folder / f"{args.name}.key"
    _report({"name": args.name, "request": path, "key": key}, words, args.json)
    return 0


def _revoke(authority: LocalAuthority, args: argparse.Namespace) -> int:
    is_file = args.name.endswith(".crt") or "/" in args.name
    entry = authority.revoke(read_certificates(Path(args.name))[0] if is_file else args.name)
    crl = authority.folder / "ca.crl"
    facts = {
        "name": entry.name,
        "serial": f"{entry.serial:x}",
        "revoked": entry.revoked and entry.revoked.isoformat(),
        "crl": crl,
    }
    _report(facts, f"revoked {entry.name}, serial {entry.serial:x}; it is on {crl}", args.json)
    return 0


def _report(facts: dict[str, Any], words: str, as_json: bool) -> None:
    if as_json:
        emit_json(facts)
    else:
        sys.stdout.write(words + "\n")


def _show(authority: LocalAuthority, args: argparse.Namespace) -> int:
    """Show every file; one that holds no certificate makes the end 1, the others are done."""
    files = args.files or sorted(authority.folder.glob("*.crt"))
    if not files:
        raise ConfigurationError("holds no certificate", str(authority.folder))
    crl = authority.folder / "ca.crl"
    crls = read_crls(crl) if crl.exists() else ()
    code = 0
    for path in files:
        try:
            for position, certificate in enumerate(read_certificates(path), start=1):
                _show_one(path, position, certificate, crls, args.json)
        except InvalidCertificate as error:
            code = 1
            if args.json:
                emit_json({"path": path, "status": "unreadable", "problem": str(error)})
            else:
                sys.stderr.write(f"{one_line(str(error))}\n")
    return code


def _show_one(
    path: Path,
    position: int,
    certificate: x509.Certificate,
    crls: Sequence[x509.CertificateRevocationList],
    as_json: bool,
) -> None:
    now = utc_now()
    description = describe(certificate, now)
    status = _status(description, certificate, crls, now)
    key = _private_key(path) if position == 1 else None
    if as_json:
        facts = {"path": path, "position": position, "status": status, "private_key": key}
        dates = {
            "not_before": description.not_before.isoformat(),
            "not_after": description.not_after.isoformat(),
        }
        emit_json(facts | dataclasses.asdict(description) | dates)
        return
    head = str(path) if position == 1 else f"{path}, certificate {position}"
    lines = (
        ("subject", description.subject),
        ("issuer", "itself" if description.issuer == description.subject else description.issuer),
        ("names", ", ".join(description.names) or "none"),
        ("usable for", ", ".join(description.usable_for)),
        ("key", f"{description.key}, signed with {description.signature}"),
        ("private key", key or "not looked for"),
        ("valid until", f"{description.not_after:%Y-%m-%d %H:%M} UTC, {_left(description)}"),
        ("status", status),
        ("SHA-256", description.fingerprint),
    )
    sys.stdout.write(f"{one_line(head)}\n")
    sys.stdout.writelines(f"  {label:<12} {one_line(text)}\n" for label, text in lines)


def _status(
    description: Description,
    certificate: x509.Certificate,
    crls: Sequence[x509.CertificateRevocationList],
    now: datetime.datetime,
) -> str:
    """Return the first thing that is wrong; the issuer's signature is not looked at."""
    for crl in crls:
        if crl.issuer == certificate.issuer:
            entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if entry is not None:
                return f"revoked on {entry.revocation_date_utc:%Y-%m-%d}"
    if now > description.not_after:
        return "expired"
    return "not yet valid" if now < description.not_before else "in date"


def _left(description: Description) -> str:
    days = description.days_left
    return f"{days} days left" if days >= 0 else f"{-days} days ago"


def _private_key(path: Path) -> str:
    """Return in words whether the key beside a certificate file is its own."""
    if path.suffix != ".crt" or not path.with_suffix(".key").exists():
        return "none beside it"
    try:
        load_credential_base(path.with_suffix(""))
    except InvalidCertificate as error:
        return error.found
    except ConfigurationError:
        return "cannot be read"
    return "fits"
