"""``config check`` and ``config show``: is this configuration good, and what does it mean?"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from dicom_secure_node import commands
from dicom_secure_node.audit.suppress import AuditSuppressions
from dicom_secure_node.commands.access import listener_facts
from dicom_secure_node.commands.home import DEFAULT_HOME
from dicom_secure_node.commands.output import emit_json, one_line
from dicom_secure_node.config import PLAIN, NodeConfig, load
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.access import AccessPolicy
from dicom_secure_node.identity.access_findings import Finding, unreachable
from dicom_secure_node.secure_node import building


def add_parser(subparsers: commands.Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``config`` with its two actions."""
    parser = subparsers.add_parser(
        "config",
        help="check a configuration file, or show what it means",
        description="Check a configuration file, or show what it means.",
        epilog="Example: dicom-secure-node config check node.toml",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, words in (
        ("check", "do what serve would do before it listens, and no more"),
        ("show", "print every setting in force, defaults included; no secrets"),
    ):
        action = actions.add_parser(
            name,
            help=words,
            description=words[0].upper() + words[1:] + ".",
            epilog=f"Example: dicom-secure-node config {name} --home secure-node",
        )
        action.add_argument("file", nargs="?", type=Path, metavar="FILE")
        action.add_argument(
            "--home",
            type=Path,
            default=DEFAULT_HOME,
            metavar="DIR",
            help="take DIR/node.toml where no FILE is given (default: ./secure-node)",
        )
        action.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Do the action asked for."""
    path = args.file or args.home / "node.toml"
    config = load(path)
    return _show(config, args.json) if args.action == "show" else _check(path, config, args.json)


def missing_files(config: NodeConfig) -> Iterator[tuple[str, str]]:
    """Yield key and problem for each file the configuration names that cannot be read.

    Files the node makes itself (users, archive, audit trail) are not asked for.
    """
    for key, path in _files_needed(config):
        try:
            with path.open("rb"):
                pass
        except OSError as exc:
            yield key, f"{path}: {exc.strerror}"


def _files_needed(config: NodeConfig) -> Iterator[tuple[str, Path]]:
    tables = [(f"listener[{i}]", table) for i, table in enumerate(config.listener)]
    for key, listener in tables:
        if listener.profile == PLAIN:
            continue
        yield from _both_halves(f"{key}.credential", listener.credential)
        yield from ((f"{key}.trust", path) for path in listener.trust)
        yield from ((f"{key}.crl", path) for path in listener.crl)
        if listener.passphrase_file is not None:
            yield f"{key}.passphrase_file", listener.passphrase_file
    for i, repository in enumerate(config.audit.repository):
        key = f"audit.repository[{i}]"
        yield from _both_halves(f"{key}.credential", repository.credential)
        yield from ((f"{key}.trust", path) for path in repository.trust)


def _both_halves(key: str, bases: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    for base in bases:
        yield key, base.with_name(f"{base.name}.crt")
        yield key, base.with_name(f"{base.name}.key")


def _check(path: Path, config: NodeConfig, json: bool) -> int:
    problems = list(missing_files(config))
    if not problems:
        try:
            building.check(config)
        except ConfigurationError as exc:
            problems.append((exc.where or "", str(exc).removeprefix(f"{exc.where}: ")))
    findings = [
        *_idle_types(config),
        *unreachable(AccessPolicy(config.access.rule), listener_facts(config)),
    ]
    if json:
        shown = [{"key": key, "problem": problem} for key, problem in problems]
        noted = [dataclasses.asdict(finding) for finding in findings]
        emit_json({"path": path, "valid": not problems, "problems": shown, "findings": noted})
        return commands.USAGE if problems else commands.DONE
    for key, problem in problems:
        sys.stderr.write(f"{path}: {key}: {one_line(problem)}\n")
    for finding in findings:  # the node would start; whether it is what was meant, we cannot say
        sys.stderr.write(f"{path}: note: {finding.key}: {one_line(finding.problem)}\n")
    if not problems:
        sys.stdout.write(f"{path}: good\n")
    return commands.USAGE if problems else commands.DONE


def _idle_types(config: NodeConfig) -> Iterator[Finding]:
    """Yield the types of user identity that are supported where another one is required."""
    for i, listener in enumerate(config.listener):
        policy = listener.identity_policy(config.identity)
        demands = {"identity": policy.default}
        demands |= {f"identity_for.{title}": one for title, one in policy.overrides.items()}
        for key, demand in demands.items():
            for kind in sorted(demand.idle):
                problem = "supported, but another type is required: by this one nobody comes in"
                yield Finding(f"listener[{i}].{key}.{kind.word}", problem)


def _show(config: NodeConfig, json: bool) -> int:
    values = dataclasses.asdict(config)
    suppressed = AuditSuppressions(config.audit.suppress).describe()
    if json:
        emit_json({**values, "suppressed": suppressed})
    else:
        for key, value in _flat(values, ""):
            sys.stdout.write(f"{key} = {one_line(str(value))}\n")
        for line in suppressed:  # what the conformance statement has to list (PS3.15 A.5)
            sys.stdout.write(f"not recorded: {one_line(line)}\n")
    return commands.DONE


def _flat(value: object, key: str) -> Iterator[tuple[str, object]]:
    """Yield dotted key and value of every setting; a list of plain values is one value."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, tuple) and value and isinstance(value[0], Mapping):
        for i, inner in enumerate(value):
            yield from _flat(inner, f"{key}[{i}]")
    elif isinstance(value, tuple):
        yield key, ", ".join(map(str, value)) or "(none)"
    else:
        yield key, "(none)" if value in ("", None, {}) else value
