"""Where the keys of a token issuer come from: a file, or a URL asked now and then.

`CachedKeys` is what stands between the issuer and everybody who can open an association:

1. Keys younger than `max_age` are used as they are.
2. Older ones are asked for again by one thread; the others go on with what there is.
3. A key nobody knows (the issuer may have changed its keys) makes us ask again, but not within
   `cool_down` of the last time: a peer that invents key IDs causes no storm of requests.
4. While the issuer is away the last good keys stay, up to `max_stale`; it is asked again after
   1, 2, 4 ... seconds, `cool_down` at most.
5. Without keys, or with an unknown key ID and an issuer that cannot be asked, nothing is
   decided: ServiceUnavailable.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from dicom_secure_node.errors import ConfigurationError, InvalidInput, ServiceUnavailable
from dicom_secure_node.identity.jwks import (
    MAX_SET_BYTES,
    IssuerKey,
    PublicKey,
    parse_jwks,
    select,
)
from dicom_secure_node.identity.key_download import SERVICE, Download

logger = logging.getLogger(__name__)


class KeySource(Protocol):
    """The keys of one issuer. Shared by threads."""

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """Return the key named `kid` for `algorithm`, None where the issuer has no such key.

        Without `kid` there has to be exactly one key for the algorithm.

        Raises
        ------
        ServiceUnavailable
            Nobody can say just now.
        """


def open_source(
    location: str | Path, *, trust: Sequence[Path] = (), seconds: float = 5.0, max_age: float = 600
) -> KeySource:
    """Return the source of the keys at `location`, an ``https:`` URL or the path of a file.

    Parameters
    ----------
    location : str or Path
    trust : sequence of Path
        CA certificates for the URL, PEM; the system's where none is given.
    seconds : float
        How long one download may take.
    max_age : float
        Seconds downloaded keys are used without asking again.

    Raises
    ------
    ConfigurationError
        The file cannot be used, or the URL is none we would ask.
    """
    if isinstance(location, str) and "://" in location:
        fetch = Download(location, trust=trust, seconds=seconds)
        return CachedKeys(fetch, location, max_age=max_age, wait=seconds)
    return JwksFile(Path(location))


class JwksFile:
    """Keys in a file, read again when it changes.

    A new version that cannot be used is reported once, and the last good one stays in force.

    Raises
    ------
    ConfigurationError
        It is absent or wrong now, at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._keys = self._read()

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """Return the key named `kid` for `algorithm`; see `KeySource`."""
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                try:
                    self._keys = self._read()
                    logger.info("keys read again from %s", self._path)
                except ConfigurationError as exc:
                    logger.error("key set unusable, the last good one stays: %s", exc)
            keys = self._keys
        return select(keys, kid, algorithm)

    def _read(self) -> tuple[IssuerKey, ...]:
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_SET_BYTES + 1)
            return parse_jwks(data, self._path.name)
        except OSError as exc:
            raise ConfigurationError(f"cannot read: {exc.strerror}", str(self._path)) from exc
        except InvalidInput as exc:
            raise ConfigurationError(
                f"found {exc.found}, wanted {exc.wanted}", str(self._path)
            ) from exc

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


class CachedKeys:
    """Keys that are fetched from the issuer now and then; the module says when.

    Parameters
    ----------
    fetch : callable
        Returns a JSON Web Key Set, or raises ServiceUnavailable; see `Download`.
    where : str
        What it asks, for the log.
    max_age, max_stale, cool_down : float
        Seconds; see the module.
    wait : float
        Seconds to wait for a fetch another thread has begun.
    ticks : callable
        Monotonic seconds.

    Raises
    ------
    ConfigurationError
        The times contradict one another. Nothing is fetched yet.
    """

    def __init__(
        self,
        fetch: Callable[[], bytes],
        where: str = "issuer",
        *,
        max_age: float = 600,
        max_stale: float = 86_400,
        cool_down: float = 30,
        wait: float = 5.0,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < cool_down <= max_age <= max_stale:
            raise ConfigurationError(
                f"found cool_down {cool_down:g}, max_age {max_age:g}, max_stale {max_stale:g}, "
                "wanted 0 < cool_down <= max_age <= max_stale"
            )
        self._fetch = fetch
        self._where = where
        self._max_age, self._max_stale, self._cool_down = max_age, max_stale, cool_down
        self._wait = wait
        self._ticks = ticks
        # All below is written by the thread that holds the lock.
        self._fetching = threading.Lock()
        self._held: tuple[tuple[IssuerKey, ...], float] = ((), -float("inf"))  # and since when
        self._next_try = -float("inf")
        self._failures = 0
        self._problem = ""

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """Return the key named `kid` for `algorithm`; see `KeySource`."""
        # (1), (2)
        if self._max_age <= self._age < self._max_stale:
            self._refresh(0)
        found = select(self._usable(), kid, algorithm)
        if found is not None:
            return found
        # (3), (4)
        self._refresh(self._wait)
        keys = self._usable()
        found = select(keys, kid, algorithm)
        # (5)
        if found is None and (self._problem or not keys):
            raise ServiceUnavailable(SERVICE, self._problem or "no answer yet")
        return found

    @property
    def _age(self) -> float:
        return self._ticks() - self._held[1]

    def _usable(self) -> tuple[IssuerKey, ...]:
        keys, since = self._held
        return keys if self._ticks() - since < self._max_stale else ()

    def _refresh(self, wait: float) -> None:
        """Fetch the keys if it is time to; somebody else's fetch is waited for."""
        if not self._fetching.acquire(timeout=wait):
            return
        try:
            if self._ticks() < self._next_try:
                return
            try:
                self._held = (parse_jwks(self._fetch(), self._where), self._ticks())
            except (ServiceUnavailable, InvalidInput) as exc:
                self._failed(exc)
            else:
                self._problem, self._failures = "", 0
                self._next_try = self._ticks() + self._cool_down
        finally:
            self._fetching.release()

    def _failed(self, exc: ServiceUnavailable | InvalidInput) -> None:
        problem = exc.reason if isinstance(exc, ServiceUnavailable) else f"found {exc.found}"
        if problem != self._problem:
            logger.error("%s: %s; the last good keys stay", self._where, problem)
        self._problem = problem
        pause = min(self._cool_down, 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._next_try = self._ticks() + pause
