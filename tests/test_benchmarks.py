"""The benchmarks run: every receiver takes what is sent. No figure is looked at."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.parts import run

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"


def test_a_quick_run_measures_every_receiver_and_prints_the_tables(tmp_path: Path) -> None:
    page = tmp_path / "figures.md"
    page.write_text(f"before\n{BEGIN}old figures\n{END}after\n")
    options = ["--quick", "--rounds", "1", "--disk", tmp_path, "--output", page]
    done = run([sys.executable, "-m", "benchmarks", *options], cwd=ROOT, timeout=110, check=True)
    text = page.read_text()
    assert text == f"before\n{BEGIN}\n{done.stdout}\n{END}after\n"
    lines = text.splitlines()
    assert "|  | storescp +B | bare pynetdicom | node |" in text
    for associations in ("1 association", "4 associations"):
        for load in ("CT, 0.5 MiB", "CT, 20 KiB", "multi-frame, 1 MiB"):
            assert f"| {load}, signed, {associations}, " in text
            (row,) = [line for line in lines if line.startswith(f"| {load}, {associations}, ")][:1]
            assert row.count("|") == 7
    assert "node TLSv1.3 TLS_AES_128_GCM_SHA256" in text
    assert [path.name for path in tmp_path.iterdir()] == [page.name]  # nothing is left behind


def test_rounds_below_one_are_a_usage_error() -> None:
    done = run([sys.executable, "-m", "benchmarks", "--rounds", "0"], cwd=ROOT)
    assert done.returncode == 2
    assert "--rounds: at least 1" in done.stderr


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
    assert rows["lost"] == rows["altered"] == rows["files nobody was told of"] == "0"
    assert rows["in the index"] == rows["compared with their files"] == "2,000"
    assert {"resident memory, MiB", "descriptors", "threads"} <= rows.keys()
