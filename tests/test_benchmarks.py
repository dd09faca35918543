"""The benchmarks run: every receiver takes what is sent. No figure is looked at."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from dicom_secure_node.config import Node
from dicom_secure_node.errors import ConfigurationError
from tests.parts import Part, run, wait_until

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"


LOADS = ("CT, 0.5 MiB", "CT, 20 KiB", "multi-frame, 1 MiB")
ASSOCIATIONS = ("1 association", "2 associations")


def quick(tables: list[str], page: Path, *options: object) -> str:
    """Measure some tables as fast as can be, and return what was printed."""
    argv = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--tables", *tables]
    argv += ["--disk", page.parent, "--output", page, *options]
    return run(argv, cwd=ROOT, timeout=110, check=True).stdout


def cells(text: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the tables below a heading, by their first cell."""
    section = text.partition(f"### {heading}\n")[2].partition("### ")[0]
    lines = [line[2:-2].split(" | ") for line in section.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in lines}


def why_not(*, workers: int) -> str:
    """Return why a node does not have so many processes, or nothing."""
    try:
        Node(workers=workers)
    except ConfigurationError as exc:
        return str(exc)
    return ""


def test_a_quick_run_measures_every_receiver_and_prints_the_tables(tmp_path: Path) -> None:
    page = tmp_path / "figures.md"
    page.write_text(f"before\n{BEGIN}old figures\n{END}after\n")
    out = quick(["peers"], page, "--plots", tmp_path / "images")
    text = page.read_text()
    assert text == f"before\n{BEGIN}\n{out}\n{END}after\n"
    peers = "storescp +B | Orthanc | bare pynetdicom | node"
    if refused := why_not(workers=2):
        assert f"- left out: node, 2 workers: this release does not have them ({refused})" in out
    else:
        peers += " | node, 2 workers"
    assert f"|  | {peers} | " in text
    assert "| node / storescp +B | node / Orthanc | node / bare pynetdicom |" in text
    rows = [f"{load}, {number}" for load in LOADS for number in ASSOCIATIONS]
    rates = cells(out, "Against the peers")
    assert [row.rpartition(", ")[0] for row in rates if row.startswith(LOADS)] == rows
    # Low and high stand beside the median of each ratio.
    assert all(
        re.fullmatch(r"[\d.]+ \([\d.]+-[\d.]+\)", row[-1]) for row in list(rates.values())[2:]
    )
    assert f"{rows[0]}, ms each" in cells(out, "Processor time")
    assert f"{rows[-1]}, s per GiB" in cells(out, "Processor time")
    assert "SHA-256" in cells(out, "Processor time")
    memory = cells(out, "Memory")
    assert memory[rows[1]][0] == "-"  # storescp forks: nobody is left to ask
    assert "-" not in memory[rows[0]]
    for name in ("node TLSv1.3 TLS_AES_128_GCM_SHA256", "Orthanc TLSv1.3 "):
        assert name in text
    assert re.search(r"^- this run took: \d+:\d\d minutes$", text, re.MULTILINE)
    pictures = {f"performance-{name}.png" for name in ("ratios", "memory", "cpu")}
    assert {path.name for path in (tmp_path / "images").iterdir()} == pictures
    for name in pictures:
        assert f"](images/{name})" in text
        assert (tmp_path / "images" / name).stat().st_size < 60 * 1024
    assert {path.name for path in tmp_path.iterdir()} == {page.name, "images"}  # nothing is left


def test_the_plug_in_stands_beside_the_same_program_without_it(tmp_path: Path) -> None:
    out = quick(["plug-in"], tmp_path / "figures.md", "--rows", "ct", "small")
    stock, ours = "plug-in, no fast lane", "plug-in"
    ratios = f"{stock} / bare pynetdicom | {ours} / bare pynetdicom"
    assert f"|  | bare pynetdicom | {stock} | {ours} | {ratios} |" in out
    rows = cells(out, "On an application's own server")
    assert [row for row in rows if row.startswith("CT, 0.5 MiB, 2 associations, ")]


def test_associations_are_counted_with_rsa_and_ec_and_for_peers_that_resume(tmp_path: Path) -> None:
    out = quick(["associations"], tmp_path / "figures.md")
    rows = cells(out, "Associations")
    for kind in ("RSA 2048", "P-256"):
        assert f"{kind}, 4 at once, associations/s" in rows
        *_, ours = rows[f"{kind}, resumed, 4 at once, associations/s"]
        assert ours == "not offered (decision 2)"
        # The node was asked as the others were.
        assert re.search(rf"^- handshakes that resumed .*, {kind}: .*, node 0%$", out, re.MULTILINE)


def test_signing_and_syncing_have_a_node_each_of_their_own(tmp_path: Path) -> None:
    out = quick(["signed", "synced"], tmp_path / "figures.md", "--rows", "small")
    signed, synced = (
        cells(out, "With every instance signed"),
        cells(out, "What syncing to a disk costs"),
    )
    assert signed[""][:3] == ["storescp +B", "node", "node, verifying"]
    assert synced[""] == ["node", "node, disk", "node, disk / node"]
    for number in ASSOCIATIONS:
        assert f"CT, 20 KiB, signed, {number}, instances/s" in signed
        assert f"CT, 20 KiB, {number}, instances/s" in synced
    assert "- the disk alone, before and after: " in out


def test_a_run_that_is_ended_prints_what_it_has_and_leaves_nothing_behind(tmp_path: Path) -> None:
    disk, page = tmp_path / "disk", tmp_path / "figures.md"
    disk.mkdir()
    argv = [sys.executable, "-m", "benchmarks", "--quick", "--tables", "synced", "--rows", "small"]
    argv += ["--rounds", "2", "--disk", str(disk), "--output", str(page)]
    with Part(argv, log=tmp_path / "log", cwd=ROOT) as part:
        wait_until(lambda: "[2 of 4, " in part.output, "a row", seconds=100)
        assert part.stop(60) == 130
        assert "### What syncing to a disk costs" in part.output
    assert not list(disk.iterdir())
    assert not page.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rounds", "0"], "--rounds: at least 1"),
        (["--tables", "peer"], "invalid choice: 'peer'"),
        (["--rows", "mr"], "invalid choice: 'mr'"),
    ],
)
def test_what_cannot_be_measured_is_a_usage_error(options: list[str], said: str) -> None:
    done = run([sys.executable, "-m", "benchmarks", *options], cwd=ROOT)
    assert done.returncode == 2
    assert said in done.stderr


def test_identities_are_measured_alone_and_beside_a_transfer() -> None:
    options = ["--quick", "--rounds", "1"]
    argv = [sys.executable, "-m", "benchmarks.identities", *options]
    done = run(argv, cwd=ROOT, timeout=110, check=True)
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line[:1] == "|"]
    assert [row for row in rows if row.startswith(("JWT", "passcode", "Kerberos"))] == [
        "JWT, RS256",
        "JWT, PS256",
        "JWT, ES256",
        "passcode, Argon2id",
        "Kerberos with AP-REP",
        "Kerberos with AP-REP, used tickets on the disk",
    ]
    assert rows[-3:] == ["nobody logs in", "by JWT", "by passcode"]


def test_signatures_are_measured_in_process_as_processes_and_by_memory() -> None:
    options = ["--quick", "--rounds", "1"]
    argv = [sys.executable, "-m", "benchmarks.signatures", *options]
    done = run(argv, cwd=ROOT, timeout=110, check=True)
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line[:1] == "|"]
    assert [row for row in rows if row != "---"] == [
        "in one process, ms",
        "CT, 0.5 MiB",
        "multi-frame, 1 MiB",
        "whole processes, 2 CT of 0.5 MiB, s",
        "verify",
        "memory beyond a small instance, MiB",
        "a hole of 16 MiB, signed",
    ]


def test_delivery_of_the_audit_trail_is_measured_beside_frames_made_before(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "benchmarks.audit", "--quick", "--rounds", "1"]
    done = run([*argv, "--disk", tmp_path], cwd=ROOT, timeout=110, check=True)
    assert "|  | frames made before | trail | trail / frames made before |" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("repository", ["collect", "rsyslog"])
def test_a_day_of_audit_with_a_bad_repository_loses_nothing(
    repository: str, tmp_path: Path
) -> None:
    options = ["--associations", "500", "--faults", "5", "--seed", "7", "--disk", tmp_path]
    argv = [sys.executable, "-m", "benchmarks.audit_day", *options, "--repository", repository]
    done = run(argv, cwd=ROOT, timeout=110, check=True)
    rows = dict(line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:])
    assert int(rows["sent"].replace(",", "")) > 1900
    assert (rows["lost"], rows["disordered"], rows["altered"]) == ("0", "0", "0")
    assert int(rows["duplicates"].replace(",", "")) > 0


def test_a_quick_soak_loses_nothing_and_looks_at_every_way_to_leak() -> None:
    argv = [sys.executable, "-m", "benchmarks.soak", "--quick"]
    done = run(argv, cwd=ROOT, timeout=110, check=True)
    rows = {
        line.split("|")[1].strip(): line.split("|")[2].strip()
        for line in done.stdout.splitlines()
        if line[:1] == "|"
    }
    assert rows["lost"] == rows["altered"] == "0"
    assert rows["in the index"] == rows["compared with their files"] == "2,000"
    assert {"resident memory, MiB", "descriptors", "threads"} <= rows.keys()
