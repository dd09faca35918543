"""``python -m benchmarks.audit_day``: a day of a hospital, with a repository that has a bad one.

Two nodes report associations from several threads while the repository is killed, frozen,
restarted, or ended by half by what stands between. Then everything has to be there, in order for
each node once what came twice is taken out by its number. Exit code 1: it is not.

A frozen repository wakes, or is killed, within the time that is sent again
(`Repository.resend_seconds`): what is lost beyond it nobody can promise.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks import arrivals, report
from benchmarks.relay import Relay
from dicom_secure_node.audit import messages as m
from dicom_secure_node.audit.messages import AuditMessage, AuditSource, Participant
from dicom_secure_node.audit.trail import AuditTrail
from dicom_secure_node.audit.transport import Repository
from dicom_secure_node.commands.home import make_home
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.spec import audit as spec
from dicom_secure_node.tls.context import ClientContext
from dicom_secure_node.tls.profiles import profile_named
from tests.parts import free_port, rsyslog, wait_until
from tests.system.collecting import Repository as Collect

NODES = ("ct1", "mr1")
THREADS = 8  # of each node
_BACK_OFF = (0.1, 0.2, 0.5, 1.0)
_FREEZE = 3.0  # seconds at most
_CATCH_UP = 600  # seconds at the end


class Running(Protocol):
    """A repository's process."""

    @property
    def pid(self) -> int: ...
    def start(self) -> object: ...
    def stop(self) -> int: ...
    def kill(self) -> None: ...


@dataclass
class Site:
    """Repository, relay and nodes."""

    process: Running
    relay: Relay
    trails: list[AuditTrail]
    chance: random.Random


def main() -> int:
    """Have the day, print what came of it, and return the exit code."""
    args = _arguments()
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=args.disk) as name:
        tally, facts = day(
            Path(name), args.associations, args.faults, args.seed, args.repository == "rsyslog"
        )
    counted = ("sent", "arrived", "duplicates", "torn", "lost", "disordered", "altered")
    facts = {key: f"{getattr(tally, key):,}" for key in counted} | facts
    sys.stdout.write(report.table(["of a day", ""], [[key, facts[key]] for key in facts]))
    return 0 if tally.good else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.audit_day", description="Deliver a day to a bad repository."
    )
    parser.add_argument("--associations", type=int, default=100_000, metavar="N")
    parser.add_argument(
        "--faults", type=int, metavar="N", help="default: one for 1000 associations, 8 at least"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--repository", choices=("collect", "rsyslog"), default="collect")
    parser.add_argument("--disk", type=Path, metavar="DIR", help="where the files are")
    args = parser.parse_args()
    if args.associations < 1:
        parser.error("--associations: at least 1")
    args.faults = args.faults or max(8, args.associations // 1000)
    return args


def day(
    folder: Path, associations: int, number: int, seed: int, by_rsyslog: bool
) -> tuple[arrivals.Tally, dict[str, str]]:
    """Return what came of so many associations and faults, and how it went."""
    home, port = folder / "home", free_port()
    make_home(home, 0)
    pki = home / "pki"
    files = {"ca": pki / "ca.crt", "crt": pki / "node.crt", "key": pki / "node.key"}
    process: Running = Collect(home, port=port)
    if by_rsyslog:
        process = rsyslog(folder / "arr", port=port, **files)
    context = ClientContext(
        profile_named("8996"), load_credential_base(pki / "client"), load_trust([pki / "ca.crt"])
    )
    begin = time.monotonic()
    with ExitStack() as stack:
        process.start()
        stack.callback(process.stop)
        relay = Relay(port)
        stack.callback(relay.close)
        to = Repository(
            "arr",
            "127.0.0.1",
            relay.port,
            context=context,
            server_name="localhost",
            back_off=_BACK_OFF,
        )
        trails = []
        for name in NODES:
            trail = AuditTrail(
                folder / name, AuditSource(name), [to], hostname=name, spool_limit=10**8
            )
            trails.append(trail)
            stack.callback(trail.stop)
            trail.start()
        site = Site(process, relay, trails, random.Random(seed))
        _have_faults(site, associations, number)
        emitted = time.monotonic()
        _catch_up(site)
        states = [one for trail in trails for one in trail.status()]
    facts = {
        "connections that broke": f"{sum(one.breaks for one in states):,}",
        "sent again": f"{sum(one.repeated for one in states):,}",
        "seconds": f"{time.monotonic() - begin:,.0f}, {emitted - begin:,.0f} of them reporting",
    }
    sources = {name.encode(): arrivals.stored(folder / name) for name in NODES}
    found = arrivals.collected(home / "collected")
    if by_rsyslog:
        found = arrivals.in_file(folder / "arr" / "arrived.log")
    return arrivals.compare(sources, found, torn=by_rsyslog), facts


# --- The hospital ---


def _have_faults(site: Site, associations: int, number: int) -> None:
    """Report the associations, a part of them around each fault."""
    edges = [associations * part // number for part in range(number + 1)]
    kinds = list(FAULTS)
    with ThreadPoolExecutor(THREADS * len(site.trails)) as pool:
        for turn in range(number):
            if turn % len(FAULTS) == 0:  # each as often as the others, in any order
                site.chance.shuffle(kinds)
            part = range(edges[turn], edges[turn + 1])
            waiting = [
                pool.submit(_report, site.trails[lane % len(site.trails)], part[lane::lanes])
                for lanes in (THREADS * len(site.trails),)
                for lane in range(lanes)
            ]
            time.sleep(site.chance.uniform(0.05, 0.4))
            FAULTS[kinds[turn % len(FAULTS)]](site)
            for one in waiting:
                one.result()


def _report(trail: AuditTrail, numbers: range) -> None:
    for number in numbers:
        for message in events(number):
            trail.emit(message)


def events(number: int) -> Iterator[AuditMessage]:
    """Yield what one association leaves behind."""
    station = Participant(
        f"CT{number % 40}", True, (f"CT{number % 40}",), address=f"10.1.0.{number % 40}"
    )
    node = Participant("4711", False, ("ARCHIVE",), address="10.0.0.5")
    user = Participant(f"user{number % 97}", True, name=f"M\u00fcller {number}")
    if number % 23 == 0:
        yield m.security_alert(
            spec.USE_OF_RESTRICTED_FUNCTION, f"association {number} refused", node
        )
        return
    study = m.study(f"1.2.826.0.1.3680043.8.498.{number}", sop_classes={"1.2.3": number % 500})
    patient = m.patient(f"PID-{number}", "Doe^Jane")
    yield m.user_authentication(spec.LOGIN, user, node)
    yield m.begin_transferring(station, node, study, patient)
    yield m.instances_transferred("C", station, node, study, patient)
    yield m.user_authentication(spec.LOGOUT, user, node)


def _catch_up(site: Site) -> None:
    """Return once every node has been connected, with nothing to send, for a while."""
    quiet = time.monotonic()

    def done() -> bool:
        nonlocal quiet
        states = [one for trail in site.trails for one in trail.status()]
        if any(one.waiting or not one.connected for one in states):
            quiet = time.monotonic()
        return time.monotonic() - quiet > 3  # an idle connection is looked at every second

    wait_until(done, "everything sent", _CATCH_UP)


# --- The faults ---


def _kill(site: Site) -> None:
    site.process.kill()
    site.process.start()


def _freeze(site: Site) -> None:
    os.kill(site.process.pid, signal.SIGSTOP)
    time.sleep(site.chance.uniform(0.2, _FREEZE))
    os.kill(site.process.pid, signal.SIGCONT)


def _freeze_and_kill(site: Site) -> None:
    os.kill(site.process.pid, signal.SIGSTOP)
    time.sleep(site.chance.uniform(0.2, _FREEZE))
    _kill(site)


def _half_close(site: Site) -> None:
    site.relay.half_close()


def _restart(site: Site) -> None:
    site.process.stop()
    site.process.start()


FAULTS: dict[str, Callable[[Site], None]] = {
    "killed": _kill,
    "frozen": _freeze,
    "frozen, then killed": _freeze_and_kill,
    "half-closed": _half_close,
    "restarted": _restart,
}


if __name__ == "__main__":
    sys.exit(main())
