"""What the pages and the systemd unit say agrees with the code."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest

from dicom_secure_node import commands
from dicom_secure_node.config.tables import Limits
from dicom_secure_node.errors import HandshakeRefused
from dicom_secure_node.node.measures import FAMILIES
from dicom_secure_node.node.plugin import HOOKS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
AUDIT_SECONDS = 5  # `AuditTrail.stop`


@pytest.mark.parametrize("kind", HandshakeRefused.KINDS)
def test_every_kind_of_refused_connection_has_a_row(kind: str) -> None:
    rows = (DOCS / "refusals.md").read_text(encoding="utf-8").splitlines()
    assert sum(row.startswith(f"| `{kind}` |") for row in rows) == 1


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_every_hook_has_a_row(hook: str) -> None:
    rows = (DOCS / "plugins.md").read_text(encoding="utf-8").splitlines()
    assert sum(row.startswith(f"| `{hook}(") for row in rows) == 1


def test_every_metric_has_a_row_that_says_what_it_is() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    for family in FAMILIES:
        labels = ", ".join(f"`{name}`" for name in family.labels)
        row = f"| `{family.name}` | {family.kind} | {labels} | {family.help} |"
        assert page.count(row) == 1
    named = set(re.findall(r"dicom_node_\w+", page))
    assert named == {family.name for family in FAMILIES}, "in the alert rules, too"


def test_decisions_are_numbered_without_a_gap() -> None:
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {int(page.name[:4])}. ")
        for part in ("Context", "Decision", "Rejected", "Consequences"):
            assert f"\n## {part}\n" in text, page


class TestSystemdUnit:
    """``conf/systemd/dicom-secure-node.service``."""

    @pytest.fixture
    def service(self) -> configparser.SectionProxy:
        unit = configparser.ConfigParser(interpolation=None, comment_prefixes="#")
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read(ROOT / "conf" / "systemd" / "dicom-secure-node.service")
        return unit["Service"]

    def test_it_starts_what_there_is(self, service: configparser.SectionProxy) -> None:
        program, *words = shlex.split(service["ExecStart"])
        assert Path(program).name == commands.PROGRAM
        parser, _ = commands.build_parser(words)
        home = parser.parse_args(words).home
        assert home == Path("/var/lib") / service["StateDirectory"]

    def test_it_waits_longer_than_the_node_does(self, service: configparser.SectionProxy) -> None:
        assert int(service["TimeoutStopSec"]) > Limits().stop_seconds + AUDIT_SECONDS

    def test_a_wrong_configuration_is_not_tried_again(
        self, service: configparser.SectionProxy
    ) -> None:
        assert int(service["RestartPreventExitStatus"]) == commands.USAGE

    def test_it_allows_what_libffi_needs(self, service: configparser.SectionProxy) -> None:
        # Seen with prctl(PR_SET_MDWE): MemoryError in OpenSSL.SSL.Context.set_verify.
        assert "MemoryDenyWriteExecute" not in service
