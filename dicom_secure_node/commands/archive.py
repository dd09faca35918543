"""``archive``: what a node keeps, whether it is still whole, and its index made anew."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
from json import dumps
from pathlib import Path

from dicom_secure_node import commands
from dicom_secure_node.archive import Archive
from dicom_secure_node.archive.layout import INDEX, QUARANTINE
from dicom_secure_node.archive.rebuild import rebuild_index
from dicom_secure_node.commands.home import DEFAULT_HOME
from dicom_secure_node.commands.output import Progress, emit_json, one_line, table
from dicom_secure_node.config import load
from dicom_secure_node.errors import ConfigurationError

_ACTIONS = {
    "list": "list the studies",
    "show": "show what is known of an instance; 1 if it is not here",
    "verify": "hash every file again and compare; 1 if one differs or is gone",
    "rebuild": "make the index anew from the files",
}
_HEADERS = ("PATIENT ID", "PATIENT", "DATE", "DESCRIPTION", "SERIES", "INSTANCES", "MIB", "STUDY")


def add_parser(subparsers: commands.Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``archive`` and its actions."""
    parser = subparsers.add_parser(
        "archive",
        help="list, verify or re-index the instances a node keeps",
        description="List, verify or re-index the instances a node keeps, also while it runs.",
        epilog="Example: dicom-secure-node archive list --home secure-node",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, words in _ACTIONS.items():
        example = f"archive {name} --home secure-node" + (" 1.2.3.4" if name == "show" else "")
        action = actions.add_parser(
            name,
            help=words,
            description=words[0].upper() + words[1:] + ".",
            epilog=f"Example: dicom-secure-node {example}",
        )
        if name == "show":
            action.add_argument("sop_instance", metavar="UID", help="SOP Instance UID")
        action.add_argument(
            "--home",
            type=Path,
            default=DEFAULT_HOME,
            metavar="DIR",
            help="the node whose DIR/node.toml says where the archive is (default: ./secure-node)",
        )
        action.add_argument(
            "--quarantine", action="store_true", help="what was set apart, in place of the rest"
        )
        action.add_argument("--json", action="store_true", help="print JSON, one object a line")


def run(args: argparse.Namespace) -> int:
    """Do the action asked for."""
    settings = load(args.home / "node.toml").archive
    folder = settings.path / QUARANTINE if args.quarantine else settings.path
    if not folder.is_dir():
        raise ConfigurationError("found no archive, wanted its folder", where=str(folder))
    index = folder / INDEX if args.quarantine or not settings.index else settings.index
    if args.action == "rebuild":
        return _rebuild(folder, index, args.json)
    with Archive(folder, index=index) as archive:
        if args.action == "show":
            return _show(archive, args.sop_instance, args.json)
        return _list(archive, args.json) if args.action == "list" else _verify(archive, args.json)


def _list(archive: Archive, json: bool) -> int:
    studies = archive.studies()
    if json:
        for study in studies:
            emit_json(dataclasses.asdict(study))
        return commands.DONE
    rows = [
        (
            study.patient_id,
            study.patient_name,
            study.study_date,
            study.study_description,
            study.series,
            study.instances,
            f"{study.size / 2**20:.1f}",
            study.study,
        )
        for study in studies
    ]
    print(table(rows, _HEADERS))
    return commands.DONE


def _show(archive: Archive, sop_instance: str, json: bool) -> int:
    found = archive.find(sop_instance)
    for entry in found:
        facts = dataclasses.asdict(entry)
        if json:
            emit_json(facts)
            continue
        findings = facts.pop("findings") or {}
        rows = [(name, "" if value is None else value) for name, value in facts.items()]
        print(table(rows, ("WHAT", "VALUE")))
        for name, report in findings.items():
            print(f"{name}:")
            print(textwrap.indent(dumps(report, indent=2), "  "))
    if not found:
        print(f"no instance {one_line(sop_instance)} here")
    return commands.DONE if found else commands.NEGATIVE


def _verify(archive: Archive, json: bool) -> int:
    good = bad = 0
    with Progress("hashing", total=archive.counts().instances) as progress:
        for verdict in archive.check():
            progress.advance()
            if verdict.problem:
                bad += 1
            else:
                good += 1
            if json:
                emit_json(
                    {
                        "path": verdict.path,
                        "valid": not verdict.problem,
                        "problem": verdict.problem,
                    }
                )
            elif verdict.problem:
                print(f"{verdict.path}: {verdict.problem}")
    if not json:
        print(f"{good} good, {bad} bad")
    return commands.NEGATIVE if bad else commands.DONE


def _rebuild(folder: Path, index: Path, json: bool) -> int:
    done = 0
    with Progress("reading") as progress:

        def advance(read: int) -> None:
            nonlocal done
            progress.advance(read - done)
            done = read

        rebuilt = rebuild_index(folder, index, advance)
    if json:
        emit_json(dataclasses.asdict(rebuilt))
    else:
        for path in rebuilt.unreadable:
            print(f"{path}: cannot be read, left out")
        print(
            f"{rebuilt.read} instances indexed, {rebuilt.removed} rows removed, "
            f"{len(rebuilt.unreadable)} files left out"
        )
    return commands.NEGATIVE if rebuilt.unreadable else commands.DONE
