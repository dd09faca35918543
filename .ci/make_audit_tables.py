#!/usr/bin/env python3
"""Write dicom_secure_node/spec/audit_tables.json from the digest of PS3.15 A.5.

The digest (``audit-messages.json``) explains every row in words; the package needs only what a
program decides by. Nothing is typed here: codes, multiplicities and usages are copied.

    .ci/make_audit_tables.py path/to/audit-messages.json dicom_secure_node/spec/audit_tables.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

# Usage "U" without a value decides nothing; "-" marks a row this edition no longer lists.
UNDECIDED = {"U"}
# Rows whose text of this edition the digest has not seen; what 2024c has is kept beside them.
UNSEEN = {"inferred-2024e", "open-2024e"}


def code(entry: dict[str, Any]) -> list[str]:
    """Return ``[value, system, meaning]`` of a coded entry."""
    return [entry["csd_code"], entry["code_system_name"], entry["original_text"]]


def field(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what a program can check of one row of a message table."""
    kept: dict[str, Any] = {"usage": entry["usage"]}
    for key in ("values", "fixed", "required_types", "condition", "term"):
        if key in entry:
            kept[key] = entry[key]
    if entry.get("basis") in UNSEEN:
        kept["usage_2024c"] = entry["usage_2024c"]
    if "cid" in entry:
        kept["cid"] = entry["cid"]
    elif "code" in entry:
        kept["codes"] = [code(entry["code"])]
    elif "codes" in entry:
        kept["codes"] = [code(one) for one in entry["codes"]]
    return kept


def fields(entries: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of one entity that decide something."""
    return {
        name: field(entry)
        for name, entry in entries.items()
        if entry["usage"] not in UNDECIDED or "values" in entry or "required_types" in entry
    }


def entity(entry: dict[str, Any]) -> dict[str, Any]:
    """Return one participant or object of a message table."""
    return {
        "key": entry["key"],
        "min": entry["min"],
        "max": entry["max"],
        "match": entry["match"],
        "fields": fields(entry["fields"]),
    }


def message(entry: dict[str, Any]) -> dict[str, Any]:
    """Return one of the fifteen messages."""
    return {
        "section": entry["section"],
        "key": entry["key"],
        "name": entry["name"],
        "patients": entry["patient_scope"],
        "event": fields(entry["event"]),
        "participants": [entity(one) for one in entry["active_participants"]],
        "objects": [entity(one) for one in entry["participant_objects"]],
        "requestor": {k: entry["requestor"][k] for k in ("min_true", "max_true", "must_be_false")},
    }


def tables(digest: dict[str, Any]) -> dict[str, Any]:
    """Return the whole compact table."""
    return {
        "comment": "Made by .ci/make_audit_tables.py from audit-messages.json; do not edit.",
        "standard": digest["standard"],
        "edition": digest["edition"],
        "section": digest["section"],
        "code_tables": {
            name: {row["value"]: row["meaning"] for row in rows}
            for name, rows in digest["code_tables"].items()
        },
        "context_groups": {
            cid: {
                "name": group["name"],
                "uid": group["uid"],
                "extensible": group["extensible"],
                "codes": {one["csd_code"]: one["original_text"] for one in group["codes"]},
            }
            for cid, group in digest["context_groups"].items()
        },
        "elements": digest["schema_tree"],
        "messages": [message(one) for one in digest["messages"]],
    }


def one_row_a_line(table: dict[str, Any]) -> str:
    """Return JSON with one code, element or entity a line, so that a change can be read."""
    text = json.dumps(table, ensure_ascii=False)
    lines = []
    for key, value in json.loads(text).items():
        if isinstance(value, dict):
            rows = ",\n".join(
                f"    {json.dumps(name)}: {json.dumps(row, ensure_ascii=False)}"
                for name, row in value.items()
            )
            lines.append(f"  {json.dumps(key)}: {{\n{rows}\n  }}")
        elif isinstance(value, list):
            rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in value)
            lines.append(f"  {json.dumps(key)}: [\n{rows}\n  ]")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    """Read the digest, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("digest", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    digest = json.loads(args.digest.read_text("utf-8"))
    args.output.write_text(one_row_a_line(tables(digest)), "utf-8")


if __name__ == "__main__":
    main()
