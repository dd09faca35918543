#!/usr/bin/env python3
"""Write what the documentation says of the code: docs/support.md, and the tables of docs/tls.md.

``.ci/make_support.py`` writes; with ``--check`` it says which page is out of date (exit code 1)
and writes nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from dicom_secure_node.spec.sections import ANNEXES, EDITION, SECTIONS, Section
from dicom_secure_node.tls.profiles import PROFILES, TLSProfile

DOCS = Path(__file__).parent.parent / "docs"
BEGIN = "<!-- Made by .ci/make_support.py; do not edit. -->\n"
END = "<!-- End of what was made. -->\n"
VERSIONS = {"TLSv1": "1.0", "TLSv1_1": "1.1", "TLSv1_2": "1.2", "TLSv1_3": "1.3"}

HEAD = f"""\
<!-- Made by .ci/make_support.py from dicom_secure_node/spec/sections.py; do not edit. -->

# What we support, and what not

You write a conformance statement, or read one that names a profile of DICOM PS3.15, and want to
know whether this release has it. Here is every profile of edition {EDITION}, in the order of the
annexes.

- **yes**: what the standard demands of the roles the note names
- **partly**: usable; the note says what is missing
- no: not in this release

"""


def support_row(section: Section) -> str:
    """Return one line of the support page."""
    support = section.support if section.support == "no" else f"**{section.support}**"
    title = section.title + (" (retired)" if section.status == "retired" else "")
    note = section.note[:1].upper() + section.note[1:]
    return f"| {section.number} | {title} | {support} | {note} |\n"


def support_page() -> str:
    """Return the whole support page."""
    counts = Counter(section.support for section in SECTIONS)
    parts = [HEAD, ", ".join(f"{counts[word]} {word}" for word in ("yes", "partly", "no")), ".\n"]
    for letter, subject in ANNEXES.items():
        parts += [f"\n## Annex {letter}: {subject}\n\n"]
        parts += ["| section | profile | supported | note |\n|---|---|---|---|\n"]
        parts += [support_row(section) for section in SECTIONS if section.annex == letter]
    return "".join(parts)


def profile_row(profile: TLSProfile) -> str:
    """Return one line of the table of TLS profiles."""
    if profile.status == "unspeakable":
        versions, missing = "none", profile.why.partition("; ")[0]
    else:
        ends = dict.fromkeys((profile.minimum, profile.maximum))
        versions = " to ".join(VERSIONS[end.name] for end in ends)
        missing = ", ".join(s.name for s in profile.suites if not s.openssl) or "nothing"
    status = "current" if profile.status == "current" else "retired"
    name = "" if profile.status == "unspeakable" else f'`"{profile.short}"`'
    return f"| {profile.section} | {name} | {status} | {versions} | {missing} |\n"


def profile_tables() -> str:
    """Return the tables of the TLS page."""
    parts = [BEGIN, "\n| section | `profile` | status | TLS | OpenSSL cannot offer |\n"]
    parts += ["|---|---|---|---|---|\n", *map(profile_row, PROFILES)]
    for profile in PROFILES:
        if profile.status != "current":
            continue
        parts += [f"\n**{profile.section}** offers, in this order:\n\n"]
        parts += [f"- TLS 1.3: {', '.join(suite.name for suite in profile.tls13_suites)}\n"]
        parts += [f"- TLS 1.2: {', '.join(suite.name for suite in profile.tls12_suites)}\n"]
        parts += [f"- groups: {', '.join(profile.groups)}\n"]
        parts += [
            f"- keys: RSA from {profile.min_rsa_bits} bits, EC from {profile.min_ec_bits} bits, "
            "signed with SHA-256 or better\n"
        ]
        parts += [f"- {profile.notes}\n"] if profile.notes else []
    return "".join([*parts, "\n", END])


def pages() -> dict[Path, str]:
    """Return every page as it should be."""
    tls = DOCS / "tls.md"
    before, begin, rest = tls.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"{tls.name}: the marks around the tables are gone")
    return {DOCS / "support.md": support_page(), tls: before + profile_tables() + after}


def main(words: list[str]) -> int:
    """Write the pages, or check them."""
    code = 0
    for page, wanted in pages().items():
        if words != ["--check"]:
            page.write_text(wanted, encoding="utf-8")
        elif not page.exists() or page.read_text(encoding="utf-8") != wanted:
            print(f"{page.name} is out of date: run .ci/make_support.py")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
