"""``user``: who may associate with user name and passcode (PS3.15 B.5)."""

from __future__ import annotations

import argparse
import getpass
import sys
from datetime import UTC, datetime
from pathlib import Path

from dicom_secure_node.commands import Subparsers
from dicom_secure_node.commands.output import emit_json, table
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.userfile import (
    add_user,
    passcode_line,
    read_users,
    remove_user,
)

_EXAMPLES = """examples:
  dicom-secure-node user add --home secure-node ada              asks for the passcode
  dicom-secure-node user add --home secure-node ct1 < passcode.txt
  dicom-secure-node user list --home secure-node
  dicom-secure-node user add --home audit-repository --file viewers.toml grace   for audit view
"""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``user`` and its actions."""
    parser = subparsers.add_parser(
        "user",
        help="who may associate with user name and passcode",
        description="Keep the users file of a node. A running node reads it again by itself.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="add a user, or give one a new passcode")
    remove = actions.add_parser("remove", help="remove a user")
    listing = actions.add_parser("list", help="list the users")
    for action in (add, remove, listing):
        action.add_argument(
            "--home",
            type=Path,
            default=Path("secure-node"),
            metavar="DIR",
            help="home of the node, with users.toml (default ./secure-node)",
        )
        action.add_argument(
            "--file",
            type=Path,
            default=Path("users.toml"),
            metavar="FILE",
            help="the users file, seen from the home: viewers.toml has those who may use "
            "`audit view` (default users.toml)",
        )
    for action in (add, remove):
        action.add_argument("name", metavar="NAME", help="user name")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")


def run(args: argparse.Namespace) -> int:
    """Do the action and return the exit code."""
    if not args.home.is_dir():
        raise ConfigurationError("no such folder", str(args.home))
    file = args.home / args.file
    match args.action:
        case "add":
            return _add(file, args.name)
        case "remove":
            return _remove(file, args.name)
    return _list(file, args.json)


def _add(file: Path, name: str) -> int:
    new = add_user(file, name, _new_passcode(), datetime.now(UTC))
    sys.stdout.write(f"{name!r} {'added' if new else 'has a new passcode'}\n")
    return 0


def _new_passcode() -> bytes:
    """Return the passcode from standard input, asked for twice where a person is there."""
    if not sys.stdin.isatty():
        return passcode_line(sys.stdin.buffer.read(), "standard input")
    passcode = getpass.getpass("passcode: ")
    if getpass.getpass("once more: ") != passcode:
        raise ConfigurationError("the two passcodes differ")
    return passcode_line(passcode.encode(), "passcode")


def _remove(file: Path, name: str) -> int:
    if not file.exists() or not remove_user(file, name):
        sys.stderr.write(f"there is no user {name!r} in {file}\n")
        return 1
    sys.stdout.write(f"{name!r} removed\n")
    return 0


def _list(file: Path, as_json: bool) -> int:
    users = list(read_users(file).rows.values()) if file.exists() else []
    for user in users if as_json else ():
        added = user.added.isoformat() if user.added else None
        emit_json({"user": user.name, "added": added, "disabled": user.disabled})
    if not as_json:
        rows = [
            (user.name, user.added or "", "disabled" if user.disabled else "") for user in users
        ]
        sys.stdout.write(table(rows, ("user", "added", "")) + "\n")
    return 0
