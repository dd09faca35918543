"""``send``: send files to a peer, with TLS and user identity (C-STORE)."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from dicom_secure_node.commands import Subparsers, outbound
from dicom_secure_node.commands.inputs import ask_passphrase
from dicom_secure_node.commands.output import Progress, emit_json, one_line
from dicom_secure_node.commands.signing import SIGNING_PROFILES, SigningKey, Wish
from dicom_secure_node.elements.folders import files_below
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.node.sending import Sent, Sign, send_files
from dicom_secure_node.signatures.profiles import CREATOR
from dicom_secure_node.signatures.sign import sign_file

_EXAMPLES = """examples:
  dicom-secure-node send pacs.example.org 2762 --credential secure-node/pki study/
  dicom-secure-node send pacs.example.org 2762 --credential secure-node/pki \\
      --calling CT1 --called PACS --user ada --passcode-file passcode.txt --ask-response *.dcm
  dicom-secure-node send 127.0.0.1 11112 --plain --called ORTHANC image.dcm
  dicom-secure-node send pacs.example.org 2762 --credential secure-node/pki \\
      --sign-key ct1.key --sign-cert ct1.crt study/
"""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``send``."""
    parser = subparsers.add_parser(
        "send",
        help="send files to a peer",
        description="Send DICOM files by C-STORE, each byte as it lies in the file. One bad "
        "file makes the exit code 1; the others are sent.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    outbound.add_peer(parser)
    parser.add_argument(
        "--sign-key",
        metavar="KEY",
        help="sign each instance before it is sent (see sign --key); the files stay as they are",
    )
    parser.add_argument(
        "--sign-cert", metavar="FILE", type=Path, help="certificate, where the key does not hold it"
    )
    parser.add_argument(
        "--sign-passphrase-file", metavar="FILE", type=Path, help="passphrase of the key, or PIN"
    )
    parser.add_argument(
        "--sign-profile", choices=SIGNING_PROFILES, help="creator (default), base, ..."
    )
    parser.add_argument(
        "paths", metavar="PATH", type=Path, nargs="+", help="file, or folder to walk"
    )


def run(args: argparse.Namespace) -> int:
    """Send the files and return the exit code."""
    open_association = outbound.opener(args)
    sign = _signing(args)
    paths = list(files_below(args.paths))
    results: Counter[str] = Counter()
    failed = False
    with Progress("sending", len(paths)) as progress:
        for sent in send_files(open_association, paths, sign=sign):
            results[sent.outcome] += 1
            failed = failed or not sent.ok
            _tell(sent, args.json)
            progress.advance()
    if not args.json:
        _summarise(results, len(paths))
    return 1 if failed or not paths else 0


def _signing(args: argparse.Namespace) -> Sign | None:
    """Return what signs an instance on its way, if anything does."""
    if args.sign_key is None:
        if args.sign_cert or args.sign_passphrase_file or args.sign_profile:
            raise ConfigurationError("found an option of signing, wanted --sign-key too")
        return None
    key = SigningKey(args.sign_key, args.sign_cert, args.sign_passphrase_file)
    signer = key.load(ask_passphrase)
    wish = Wish(args.sign_profile or CREATOR.name)
    return lambda path, out: sign_file(path, out, signer, wish.order(path))


def _tell(sent: Sent, as_json: bool) -> None:
    """Print what became of one file; people only want to hear of what did not just work."""
    if as_json:
        emit_json(
            {
                "path": str(sent.path),
                "outcome": sent.outcome,
                "ok": sent.ok,
                "status": None if sent.status is None else f"0x{sent.status:04X}",
                "text": sent.text,
                "sop_instance": sent.sop_instance,
            }
            | ({"signature": sent.signature} if sent.signature else {})
        )
    elif sent.text:
        sys.stdout.write(f"{one_line(str(sent.path))}: {sent.outcome}: {one_line(sent.text)}\n")


def _summarise(results: Counter[str], total: int) -> None:
    stored = results["stored"] + results["warning"]
    others = ("refused", "unsendable", "lost", "skipped")
    words = [f"{stored} of {total} files stored"]
    words += [f"{results[outcome]} {outcome}" for outcome in others if results[outcome]]
    sys.stdout.write(", ".join(words) + "\n")
