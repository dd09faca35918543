#!/usr/bin/env python3
"""Write dicom_secure_node/spec/signature_tables.json from the digest of PS3.15 Annex C.

The digest (``signature-profile-tags.json``) repeats a module's tags under every profile and adds
notes; the package needs each module once, and which profile names it. Nothing is typed here:
tags, titles, keywords and VRs are copied.

    .ci/make_signature_tables.py path/to/signature-profile-tags.json \\
        dicom_secure_node/spec/signature_tables.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from make_audit_tables import one_row_a_line

COMMAND = (
    ".ci/make_signature_tables.py signature-profile-tags.json "
    "dicom_secure_node/spec/signature_tables.json"
)


def modules(digest: dict[str, Any]) -> dict[str, Any]:
    """Return the tags of every module, each once.

    A module without tags is a remark of the digest and is left out.
    """
    found: dict[str, Any] = {}
    for lists in (*digest["profiles"].values(), digest["recommended_extra"]):
        for name, tags in lists.items():
            row = {"table": digest["module_tables"].get(name, ""), "tags": tags}
            if found.setdefault(name, row) != row:
                raise SystemExit(f"{name}: two profiles differ in its tags")
    return {name: row for name, row in found.items() if row["tags"]}


def purpose(required: Any) -> Any:
    """Return None, ``"any"`` or ``[code, scheme]``."""
    if isinstance(required, dict):
        return [required["code"], required["scheme"]]
    return required and "any"


def profile(digest: dict[str, Any], section: str) -> dict[str, Any]:
    """Return which modules one profile names, and its rules."""
    lists = digest["profiles"][section]
    return {
        "title": digest["profile_titles"][section],
        "unconditional": digest["unconditional"][section],
        "purpose": purpose(digest["required_purpose_code"][section]),
        "wide": digest["wide_reading"].get(section, {"modules": []})["modules"],
        "modules": [name for name, tags in lists.items() if tags],
    }


def tables(digest: dict[str, Any]) -> dict[str, Any]:
    """Return the whole compact table; an attribute no module lists at its top level is left out."""
    standard, edition = digest["_meta"]["target_edition"].split()
    rows = modules(digest)
    listed = {tag for row in rows.values() for tag in row["tags"]}
    return {
        "comment": "Made by .ci/make_signature_tables.py from signature-profile-tags.json; "
        "do not edit. An 'xx' in a group stands for the even values 00 to 1E.",
        "command": COMMAND,
        "standard": f"DICOM {standard}",
        "edition": edition,
        "section": "Annex C",
        "profiles": {section: profile(digest, section) for section in digest["profiles"]},
        "recommended": list(digest["recommended_extra"]),
        "modules": rows,
        "attributes": {
            tag: [keyword, digest["vr"][tag]]
            for tag, keyword in digest["keywords"].items()
            if tag in listed
        },
    }


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
