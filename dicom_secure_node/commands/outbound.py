"""What the verbs that call a peer share: where it is, TLS, AE titles and user identity."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pynetdicom.presentation import PresentationContext

from dicom_secure_node.commands.inputs import ask_passphrase
from dicom_secure_node.errors import ConfigurationError, IdentityRefused
from dicom_secure_node.identity import saml_response
from dicom_secure_node.identity.claims import Claim, IdentityType
from dicom_secure_node.identity.jwt_tokens import outgoing_claim
from dicom_secure_node.identity.kerberos import OutgoingTicket
from dicom_secure_node.identity.userfile import passcode_line
from dicom_secure_node.node.requestor import RequestorAssociation
from dicom_secure_node.node.scu import associate
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ClientContext
from dicom_secure_node.tls.profiles import profile_named

Opener = Callable[[Sequence[PresentationContext]], RequestorAssociation]


def add_peer(parser: argparse.ArgumentParser) -> None:
    """Add the arguments HOST and PORT and the options every calling verb takes."""
    parser.add_argument("host", metavar="HOST", help="name or address of the peer")
    parser.add_argument("port", metavar="PORT", type=_port, help="its port, 1 to 65535")
    transport = parser.add_mutually_exclusive_group(required=True)
    transport.add_argument(
        "--credential",
        metavar="DIR",
        type=Path,
        help="folder with client.crt, client.key and ca.crt (and ca.crl, if any), PEM",
    )
    transport.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument(
        "--profile", default="8996", help="TLS profile, e.g. 8996 (B.12) or 8996-mod (B.13)"
    )
    parser.add_argument(
        "--allow-retired", action="store_true", help="also a profile the standard has withdrawn"
    )
    parser.add_argument(
        "--server-name", metavar="NAME", help="name its certificate must hold (default HOST)"
    )
    parser.add_argument(
        "--any-name", action="store_true", help="take a trusted certificate whatever its name"
    )
    parser.add_argument("--calling", metavar="AE", default="SECURE-SCU", help="our AE title")
    parser.add_argument("--called", metavar="AE", default="ANY-SCP", help="the peer's AE title")
    parser.add_argument("--user", metavar="NAME", help="user identity to send")
    parser.add_argument(
        "--passcode-file",
        metavar="FILE",
        help="its first line is the passcode; - reads standard input",
    )
    parser.add_argument(
        "--kerberos",
        metavar="PRINCIPAL",
        nargs="?",
        const="",
        help="ticket from the credential cache, for dicom/HOST unless given",
    )
    parser.add_argument("--saml", metavar="FILE", help="SAML assertion to send, XML")
    parser.add_argument("--jwt", metavar="FILE", help="JSON Web Token to send; - reads stdin")
    parser.add_argument(
        "--ask-response", action="store_true", help="insist that the peer confirms the identity"
    )
    parser.add_argument(
        "--allow-plain-passcode",
        action="store_true",
        help="send passcode, ticket, assertion or token without TLS",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def opener(args: argparse.Namespace) -> Opener:
    """Return what makes an association of presentation contexts, as the options say.

    Raises
    ------
    ConfigurationError, InvalidCertificate
        An option is wrong, or a file it names.
    """
    context = None
    if args.credential is not None:
        context = _tls(args.credential, args.profile, args.allow_retired, not args.any_name)
    # pynetdicom tells its log what we raise as errors; a person wants to read it once.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    call = partial(
        associate,
        args.host,
        args.port,
        calling=args.calling,
        called=args.called,
        tls_context=context,
        server_name=args.server_name,
        allow_plain=args.allow_plain_passcode,
    )
    if args.kerberos is not None:
        return lambda contexts: _with_ticket(call, contexts, args)
    identity = _identity(args)
    confirm = _confirm_saml(identity) if args.saml and args.ask_response else None
    return lambda contexts: call(contexts=contexts, identity=identity, confirm=confirm)


def _confirm_saml(claim: Claim | None) -> Callable[[bytes | None], None]:
    """Return what looks at the peer's SAML response before any data flows (PS3.15 B.7)."""

    def confirm(response: bytes | None) -> None:
        if claim is not None and response is not None:
            saml_response.check_answer(claim, response)

    return confirm


def _with_ticket(
    call: Callable[..., RequestorAssociation],
    contexts: Sequence[PresentationContext],
    args: argparse.Namespace,
) -> RequestorAssociation:
    """Associate with a ticket, made for this one association, and see the peer's proof."""
    principal = args.kerberos or f"dicom/{args.server_name or args.host}"
    with OutgoingTicket(principal) as ticket:
        return call(contexts=contexts, identity=ticket.claim, confirm=ticket.confirm)


def _port(text: str) -> int:
    number = int(text)
    if not 0 < number < 65536:
        raise ValueError
    return number


def _tls(folder: Path, profile: str, allow_retired: bool, check_name: bool) -> ClientContext:
    if not folder.is_dir():
        raise ConfigurationError("no such folder, wanted client.crt, client.key, ca.crt in it",
                                 str(folder))  # fmt: skip
    crl = folder / "ca.crl"
    return ClientContext(
        profile_named(profile, allow_retired=allow_retired),
        load_credential_base(folder / "client", ask_passphrase),
        load_trust([folder / "ca.crt"], [crl] if crl.exists() else []),
        check_name,
    )


def _identity(args: argparse.Namespace) -> Claim | None:
    if args.saml:
        assertion = _contents(args.saml)
        return saml_response.outgoing_claim(assertion, response_requested=args.ask_response)
    if args.jwt:
        return outgoing_claim(_contents(args.jwt), ask_response=args.ask_response)
    if args.user is None:
        if args.passcode_file or args.ask_response:
            raise ConfigurationError("found --passcode-file or --ask-response, wanted --user too")
        return None
    passcode = _passcode(args.passcode_file) if args.passcode_file else b""
    kind = IdentityType.PASSCODE if args.passcode_file else IdentityType.USERNAME
    name = args.user.encode("utf-8", "surrogateescape")
    claim = Claim(kind, name, passcode, response_requested=args.ask_response)
    try:
        _ = claim.user
    except IdentityRefused as exc:
        raise ConfigurationError(exc.reason, "--user") from exc
    return claim


def _passcode(file: str) -> bytes:
    return passcode_line(_contents(file), "standard input" if file == "-" else file)


def _contents(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"cannot read: {exc.strerror}", file) from exc
