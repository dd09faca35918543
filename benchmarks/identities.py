"""``python -m benchmarks.identities``: how fast logins are, and what they cost everybody else.

Two tables: what each back-end verifies in a second by itself, one caller and two; and what one
association's C-STOREs come to while others log in as fast as they can. The passcodes, tokens and
tickets are right; the KDC is MIT's.
"""

from __future__ import annotations

import argparse
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks import receivers
from benchmarks.instances import Load, ct
from benchmarks.progress import Progress
from benchmarks.receivers import Pki, Receiver
from benchmarks.rounds import Rounds
from dicom_secure_node.identity.claims import Backend, Claim, IdentityType
from dicom_secure_node.identity.passcodes import PasscodeBackend
from dicom_secure_node.identity.replay import ReplayStore
from dicom_secure_node.identity.userfile import add_user
from tests.identity import kdc, tokens
from tests.loopback import request_pdu
from tests.system.raw import ASSOCIATE_AC, Peer, identity_item
from tests.system.running import tcp

_PASSCODE = b"correct horse battery"
_CALLERS = (1, 2)
_AT_ONCE = 4  # logins
_ANSWERED = 0.5  # of the time a sender pauses after a refusal, seconds


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.identities", description="Measure the identity back-ends."
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--quick", action="store_true", help="the figures mean nothing")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        root = Path(folder)
        sys.stdout.write("| verified in a second | one caller | two callers |\n|---|---|---|\n")
        for name, rates in _back_ends(root, 4 if args.quick else 400, args.rounds):
            cells = " | ".join(f"{rate:,.0f}" for rate in rates)
            sys.stdout.write(f"| {name} | {cells} |\n")
        sys.stdout.write(
            f"\n| C-STORE, CT 20 KiB, 1 association, while {_AT_ONCE} others log in "
            "| instances/s | logins/s |\n|---|---|---|\n"
        )
        for name, rate, logins in _stores(root / "node", args.rounds, quick=args.quick):
            sys.stdout.write(f"| {name} | {rate:,.0f} | {logins:,.1f} |\n")
    return 0


# -- the back-ends alone -------------------------------------------------------------------


def _back_ends(root: Path, count: int, rounds: int) -> Iterator[tuple[str, list[float]]]:
    keys = tokens.write_keys(root / "keys.json")
    signed = {"RS256": "rsa", "PS256": "rsa", "ES256": "p256"}
    for algorithm, key in signed.items():
        token = tokens.signed(key=key, algorithm=algorithm)
        claims = [Claim(IdentityType.JWT, token)] * count
        yield f"JWT, {algorithm}", _rates(tokens.backend_of(keys), claims, rounds)
    users = root / "users.toml"
    add_user(users, "ada", _PASSCODE, datetime.now(UTC))
    logins = [Claim(IdentityType.PASSCODE, b"ada", _PASSCODE)] * max(2, count // 50)
    yield "passcode, Argon2id", _rates(PasscodeBackend(users), logins, rounds)
    with kdc.running(root / "realms") as site:
        yield "Kerberos with AP-REP", [_kerberos(site, None, count, n) for n in _CALLERS]
        with closing(ReplayStore(root / "used")) as used:
            rates = [_kerberos(site, used, count, n) for n in _CALLERS]
        yield "Kerberos with AP-REP, used tickets on the disk", rates


def _kerberos(site: kdc.Site, used: ReplayStore | None, count: int, callers: int) -> float:
    backend = site.backend() if used is None else site.backend(used=used)
    return kdc.validations_per_second(backend, kdc.SERVICE, site.ada, count=count, threads=callers)


def _rates(backend: Backend, claims: Sequence[Claim], rounds: int) -> list[float]:
    """Return the median of verified claims a second, for each number of callers."""

    def seconds(callers: int) -> float:
        with ThreadPoolExecutor(callers) as pool:
            start = time.perf_counter()
            list(pool.map(lambda claim: backend.verify(claim, tokens.PEER), claims))
            return time.perf_counter() - start

    return [median(len(claims) / seconds(callers) for _ in range(rounds)) for callers in _CALLERS]


# -- logins beside a transfer --------------------------------------------------------------


def _stores(folder: Path, rounds: int, *, quick: bool) -> Iterator[tuple[str, float, float]]:
    node = receivers.node(folder)
    pki = Pki(folder / "pki")
    add_user(folder / "users.toml", "ada", _PASSCODE, datetime.now(UTC))
    tokens.write_keys(folder / "keys.json")
    _configure(folder / "node.toml")
    now = int(time.time())
    token = tokens.signed(tokens.but(iat=now - 10, exp=now + 3000, jti=None))
    logins: dict[str, bytes] = {
        "nobody logs in": b"",
        "by JWT": identity_item(5, token),
        "by passcode": identity_item(2, b"ada", _PASSCODE),
    }
    load = Load("CT, 20 KiB", 4 if quick else 1000, ct(96, 96), by_size=False)
    node.start()
    try:
        round_of = Rounds(pki, folder / "files", 1, Progress())
        round_of.warm_up(node)
        rates: dict[str, list[float]] = {name: [] for name in logins}
        done: dict[str, list[float]] = {name: [] for name in logins}
        for _ in range(rounds):
            for name, item in logins.items():
                start = time.perf_counter()
                with _logging_in(node, pki, item) as accepted:
                    row = round_of.stores(load, [node], 1)
                    done[name].append(accepted() / (time.perf_counter() - start))
                rates[name] += row.rates[node.name]
        for name in logins:
            yield name, median(rates[name]), median(done[name])
    finally:
        node.stop()


def _configure(path: Path) -> None:
    text = path.read_text().replace('types = ["passcode"]', 'types = ["passcode", "jwt"]')
    tables = f'[identity.jwt]\nissuer = "{tokens.ISSUER}"\naudience = "{tokens.AUDIENCE}"\n'
    path.write_text(f'{text}\n{tables}jwks = "keys.json"\n')


@contextmanager
def _logging_in(node: Receiver, pki: Pki, item: bytes) -> Iterator[Callable[[], int]]:
    """Log in again and again meanwhile; what is yielded tells how many were accepted."""
    ended = threading.Event()
    accepted = [0] * _AT_ONCE
    context = ssl.create_default_context(cafile=str(pki.folder / "ca.crt"))
    context.check_hostname = False
    context.load_cert_chain(pki.folder / "client.crt", pki.folder / "client.key")

    def lane(number: int) -> None:
        while not ended.is_set():
            plain = tcp(node.part.port)
            with Peer(context.wrap_socket(plain)) as peer:
                kind, _ = peer.associate(request_pdu(user_information=item))
            accepted[number] += kind == ASSOCIATE_AC
            if kind != ASSOCIATE_AC:
                ended.wait(_ANSWERED)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running = [pool.submit(lane, n) for n in range(_AT_ONCE)] if item else []
        try:
            yield lambda: sum(accepted)
        finally:
            ended.set()
        for one in running:
            one.result()


if __name__ == "__main__":
    sys.exit(main())
