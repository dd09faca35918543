"""``audit``: judge audit messages, our own or another product's, and collect them (PS3.15 A.5)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from dicom_secure_node.audit.splitting import Piece, split
from dicom_secure_node.audit.validate import SIZE_LIMIT, Problem, Report, validate
from dicom_secure_node.commands import (
    DONE,
    NEGATIVE,
    Subparsers,
    audit_collect,
    audit_verify,
    audit_view,
)
from dicom_secure_node.commands.audit_report import as_json, as_text
from dicom_secure_node.commands.output import emit_json, one_line
from dicom_secure_node.errors import ConfigurationError

_EXAMPLES = """examples:
  dicom-secure-node audit validate message.xml
  dicom-secure-node audit validate --json secure-node/audit   every stored message of a node
  dicom-secure-node audit validate /var/log/audit.log         syslog, as a collector keeps it
  cat message.xml | dicom-secure-node audit validate -
"""

_SUFFIXES = (".xml", ".ndjson", ".jsonl")
_LEAST_LIMIT = 32768  # A.6: messages of at least this size are supported


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``audit`` and its actions."""
    parser = subparsers.add_parser(
        "audit",
        help="judge and collect audit messages",
        description="Judge audit messages by PS3.15 A.5, and keep those of others.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "validate",
        help="say which rules a message breaks, and where",
        description="Say of each message whether it is valid, which rules it breaks where, and "
        "whether it is in a dialect that is known (dcm4che, IHE ATNA, RFC 3881, earlier editions). "
        "Exit code 0: all valid; 1: at least one is not, or nothing was found to judge.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "paths",
        nargs="+",
        metavar="FILE",
        help="XML, a trail in JSON lines, syslog in lines or frames, a folder of .xml, .ndjson "
        "and .jsonl, or - for stdin; one file may hold many messages",
    )
    check.add_argument("--json", action="store_true", help="one JSON object a message on stdout")
    check.add_argument(
        "--max-size",
        type=_size,
        default=SIZE_LIMIT,
        metavar="OCTETS",
        help=f"largest message to read (default {SIZE_LIMIT}; A.6 asks for {_LEAST_LIMIT})",
    )
    audit_collect.add_action(actions)
    audit_verify.add_action(actions)
    audit_view.add_action(actions)


def run(args: argparse.Namespace) -> int:
    """Do what ``audit ACTION`` asks for."""
    match args.action:
        case "collect":
            return audit_collect.run(args)
        case "verify-log":
            return audit_verify.run(args)
        case "view":
            return audit_view.run(args)
    return _validate(args)


def _validate(args: argparse.Namespace) -> int:
    bad = count = foreign = 0
    # Every path is looked at first: a missing one is a usage error, not half an answer.
    for name, path in list(_sources(args.paths)):
        for label, piece in _pieces(name, path, args.max_size):
            if piece.foreign:
                foreign += 1
                continue
            report = _judged(piece, args.max_size)
            count += 1
            bad += not report.valid
            if args.json:
                emit_json(as_json(label, report))
            else:
                for line in as_text(label, report):
                    print(one_line(line))
    if not args.json:
        others = f", {foreign} syslog messages of other kinds" if foreign else ""
        print(f"{count} messages, {bad} not valid{others}")
    return NEGATIVE if bad or not count else DONE


def _size(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: wanted a number of octets")
    return value


def _sources(paths: Sequence[str]) -> Iterator[tuple[str, Path | None]]:
    """Yield label and file of everything to read; None stands for stdin."""
    for name in paths:
        path = Path(name)
        if name == "-":
            yield "-", None
        elif path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
            yield from ((str(one), one) for one in found)
        elif path.is_file():
            yield name, path
        else:
            raise ConfigurationError("no such file or folder", name)


def _pieces(name: str, path: Path | None, limit: int) -> Iterator[tuple[str, Piece]]:
    """Yield label and content of each message in a file."""
    if path is None:
        yield from _labelled(name, sys.stdin.buffer, limit)
    else:
        with path.open("rb") as file:
            # JSON lines count from 1 also when there is but one.
            yield from _labelled(name, file, limit, always=path.suffix != ".xml")


def _labelled(
    name: str, stream: BinaryIO, limit: int, *, always: bool = False
) -> Iterator[tuple[str, Piece]]:
    """Yield the messages, numbered unless a file holds just one."""
    pieces = split(stream, limit)
    first = next(pieces, None)
    second = next(pieces, None)
    if first is None:
        return
    alone = second is None and first.number == 1 and not always
    yield (name if alone else f"{name}:{first.number}"), first
    if second is not None:
        yield f"{name}:{second.number}", second
    for piece in pieces:
        yield f"{name}:{piece.number}", piece


def _judged(piece: Piece, limit: int) -> Report:
    if piece.trouble:
        return Report((Problem("A.5.a", "/", piece.trouble, "an audit message"),))
    return validate(piece.raw, limit=limit)
