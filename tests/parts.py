"""Start and stop the real programs the tests talk to.

A missing program is a failure that names its Debian package, never a skip. Programs are called by
full path: pynetdicom installs scripts named like DCMTK's, and they come first on the path.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pytest

PROGRAMS = {
    # program: (full path on Debian 12, Debian package)
    "dcmconv": ("/usr/bin/dcmconv", "dcmtk"),
    "dcmdump": ("/usr/bin/dcmdump", "dcmtk"),
    "dcmsign": ("/usr/bin/dcmsign", "dcmtk"),
    "dcmftest": ("/usr/bin/dcmftest", "dcmtk"),
    "dcmodify": ("/usr/bin/dcmodify", "dcmtk"),
    "echoscu": ("/usr/bin/echoscu", "dcmtk"),
    "findscu": ("/usr/bin/findscu", "dcmtk"),
    "storescp": ("/usr/bin/storescp", "dcmtk"),
    "storescu": ("/usr/bin/storescu", "dcmtk"),
    "Orthanc": ("/usr/sbin/Orthanc", "orthanc"),
    "initdb": ("/usr/lib/postgresql/15/bin/initdb", "postgresql"),
    "postgres": ("/usr/lib/postgresql/15/bin/postgres", "postgresql"),
    "rsyslogd": ("/usr/sbin/rsyslogd", "rsyslog"),
    "openssl": ("/usr/bin/openssl", "openssl"),
    "softhsm2-util": ("/usr/bin/softhsm2-util", "softhsm2"),
    "sslscan": ("/usr/bin/sslscan", "sslscan"),
    "testssl": ("/usr/bin/testssl", "testssl.sh"),
    "strace": ("/usr/bin/strace", "strace"),
    "jing": ("/usr/bin/jing", "jing"),
    "chromedriver": ("/usr/bin/chromedriver", "chromium-driver"),
    "chromium": ("/usr/bin/chromium", "chromium"),
    "trang": ("/usr/bin/trang", "trang"),
}

# What Debian does not install beside something else, see .ci/install_parts.sh.
_UNPACKED = Path(__file__).parents[1] / ".parts"

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes one.
_PORTS = range(11000, 32000)
_held: list[int] = []  # descriptors


def program(name: str) -> str:
    """Return the full path of a program of `PROGRAMS`, or fail naming its Debian package."""
    path, package = PROGRAMS[name]
    if not Path(path).exists():
        pytest.fail(f"{path} is missing: apt-get install {package}", pytrace=False)
    return path


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: float = 60,
    stdin: str | bytes | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; output is text, bytes that are no UTF-8 become U+FFFD.

    The first word may be a name of `PROGRAMS`. With `check` a non-zero exit code fails the test and
    shows what the program said.
    """
    words = [os.fspath(word) for word in argv]
    words[0] = program(words[0]) if words[0] in PROGRAMS else words[0]
    given = stdin.encode() if isinstance(stdin, str) else stdin
    raw = subprocess.run(
        words,
        input=b"" if given is None else given,
        capture_output=True,
        timeout=timeout,
        cwd=cwd,
        env=env,
        check=False,
    )
    done = subprocess.CompletedProcess(
        words,
        raw.returncode,
        raw.stdout.decode(errors="replace"),
        raw.stderr.decode(errors="replace"),
    )
    if check and done.returncode:
        pytest.fail(f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def free_port() -> int:
    """Return a port of 127.0.0.1 nobody listens on, reserved among all runs on this machine.

    The reservation is an abstract socket name this process holds until it ends: two workers that
    look at the same moment do not get the same number.
    """
    start = os.getpid() * 97 + len(_held)
    for step in range(len(_PORTS)):
        port = _PORTS[(start + step) % len(_PORTS)]
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0dicom-secure-node-tests-port-{port}")
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _held.append(claim.detach())
        return port
    pytest.fail("no free port left")


def listening(port: int, *, udp: bool = False) -> bool:
    """Tell whether somebody listens on `port`, without connecting to it.

    A connection would itself be an event to the program under test: a failed handshake to audit.
    """
    state = "07" if udp else "0A"
    for table in ("udp", "udp6") if udp else ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, found, *_ = line.split()
            if found == state and int(local.rpartition(":")[2], 16) == port:
                return True
    return False


def wait_until(met: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Return once `met()` is true; fail naming `what` when it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s")
        select.select((), (), (), 0.01)  # a breath between two looks, not a guess at a duration


def wait_for_port(port: int, seconds: float = 20, *, udp: bool = False) -> None:
    """Return once somebody listens on `port`."""
    wait_until(lambda: listening(port, udp=udp), f"a listener on port {port}", seconds)


class Part:
    """A real program, running while the ``with`` block does.

    Parameters
    ----------
    argv : sequence of str
        Program (a name of `PROGRAMS` or a path) and arguments.
    log : Path
        File that takes the program's output.
    port : int, optional
        Its main port; kept for the test to read.
    ready : callable or int, optional
        A port to wait for, or a predicate; `port` when it is left out.
    cwd, env : optional
        As for `subprocess.Popen`.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        port: int | None = None,
        ready: Callable[[], object] | int | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.argv = [os.fspath(word) for word in argv]
        if self.argv[0] in PROGRAMS:
            self.argv[0] = program(self.argv[0])
        self.log = log
        self.port = port or 0
        self.cwd = cwd
        self.env = env
        self._ready = port if ready is None else ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id while it runs."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def output(self) -> str:
        """What the program has said so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self) -> Part:
        """Start the program and return once it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.cwd,
                env=self.env,
            )
        try:
            wait_until(self._is_ready, f"{self.argv[0]} ready")
        except BaseException:
            self.stop()
            print(f"{self.argv}\n{self.output}")
            raise
        return self

    def _is_ready(self) -> bool:
        assert self._process is not None, "not started"
        if self._process.poll() is not None:
            pytest.fail(
                f"{self.argv} ended with {self._process.returncode} before it was ready\n"
                f"{self.output}"
            )
        if self._ready is None:
            return True
        return listening(self._ready) if isinstance(self._ready, int) else bool(self._ready())

    def stop(self, seconds: float = 15) -> int:
        """Ask the process to end, by its id, wait for it, and return its exit code."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def kill(self) -> None:
        """End the process at once, as a power cut would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wait(self, seconds: float = 60) -> int:
        """Return the exit code once the program has ended by itself."""
        assert self._process is not None, "not started"
        return self._process.wait(seconds)

    def __enter__(self) -> Part:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if error is not None:
            print(f"--- {self.argv}\n{self.output}")  # pytest shows it with the failure


def storescp(folder: Path, *options: str | os.PathLike[str], port: int | None = None) -> Part:
    """Return DCMTK's storescp, storing below ``folder/received`` (bit-preserving with ``+B``).

    TLS by its own options: ``"+tls", key, crt, "+cf", ca, "-rc"`` (``-rc``: require a certificate).
    """
    number = port or free_port()
    received = folder / "received"
    received.mkdir(parents=True, exist_ok=True)
    argv = ["storescp", *options, "-od", received, str(number)]
    return Part(argv, log=folder / "storescp.log", port=number)


def orthanc(folder: Path, env: Mapping[str, str] | None = None, **settings: object) -> Part:
    """Return Orthanc with ``folder`` as its home; `settings` are added to its configuration.

    ``part.port`` is the DICOM port; the HTTP port is ``settings["HttpPort"]`` where given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    http = free_port()
    configuration: dict[str, object] = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomPort": free_port(),
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "Plugins": [],
        **settings,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    port, web = configuration["DicomPort"], configuration["HttpPort"]
    assert isinstance(port, int)
    assert isinstance(web, int)
    return Part(
        ["Orthanc", path],
        log=folder / "orthanc.log",
        port=port,
        env=env,
        ready=lambda: listening(port) and listening(web),
    )


def rsyslog(
    folder: Path,
    *,
    ca: Path | None = None,
    crt: Path | None = None,
    key: Path | None = None,
    permitted: Sequence[str] = (),
    port: int | None = None,
    udp: bool = False,
    driver: str = "ossl",
) -> Part:
    """Return rsyslogd writing each raw message as one line of ``folder/arrived.log``.

    With `ca`, `crt` and `key` it speaks TLS and demands a client certificate: any of that CA, or
    one with a name of `permitted`; `driver` is its TLS, ``ossl`` or ``gtls``. With `udp` it takes
    datagrams on the same port number instead.
    A line feed inside a message is written as ``#012``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = port or free_port()
    tls = ca is not None and not udp
    head = f'global(workDirectory="{folder}" maxMessageSize="256k"'
    if tls:
        head += (
            f'\n  defaultNetstreamDriverCAFile="{ca}"'
            f'\n  defaultNetstreamDriverCertFile="{crt}" defaultNetstreamDriverKeyFile="{key}"'
        )
    stream = ""
    if tls:
        names = ",".join(f'"{name}"' for name in permitted)
        stream = f' StreamDriver.Name="{driver}" StreamDriver.Mode="1" StreamDriver.AuthMode='
        stream += f'"x509/name" PermittedPeer=[{names}]' if permitted else '"x509/certvalid"'
    module = 'module(load="imudp")' if udp else f'module(load="imtcp"{stream})'
    kind = "imudp" if udp else "imtcp"
    frame = "" if udp else ' MaxFrameSize="262144"'
    (folder / "rsyslog.conf").write_text(
        f"""{head})
{module}
template(name="raw" type="list") {{ property(name="rawmsg") constant(value="\\n") }}
ruleset(name="arrived") {{ action(type="omfile" file="{folder}/arrived.log" template="raw") }}
input(type="{kind}" address="127.0.0.1" port="{number}" ruleset="arrived"{frame})
"""
    )
    argv = ["rsyslogd", "-n", "-f", folder / "rsyslog.conf", "-i", folder / "rsyslog.pid"]
    return Part(
        argv,
        log=folder / "rsyslog.log",
        port=number,
        ready=lambda: listening(number, udp=udp),
    )


def syslog_ng(folder: Path, *, ca: Path, crt: Path, key: Path) -> Part:
    """Return syslog-ng, with TLS and any client certificate of the CA.

    ``folder/arrived.log`` has each raw message as a line, ``folder/numbers.log`` the sequenceId it
    read in the structured data.
    """
    root = _UNPACKED / "syslog-ng"
    if not (root / "usr/sbin/syslog-ng").exists():
        pytest.fail(f"{root} is missing: run .ci/install_parts.sh", pytrace=False)
    folder.mkdir(parents=True, exist_ok=True)
    number = free_port()
    (folder / "syslog-ng.conf").write_text(
        f"""@version: 3.38
options {{ log-msg-size(262144); }};
source s {{ syslog(ip(127.0.0.1) port({number}) transport("tls") flags(store-raw-message)
  tls(ca-file("{ca}") cert-file("{crt}") key-file("{key}") peer-verify(required-trusted))); }};
destination raw {{ file("{folder}/arrived.log" template("${{RAWMSG}}\\n")); }};
destination read {{ file("{folder}/numbers.log" template("${{.SDATA.meta.sequenceId}}\\n")); }};
log {{ source(s); destination(raw); destination(read); }};
"""
    )
    (modules,) = (root / "usr/lib/syslog-ng").glob("3.*")
    machine = next(root.glob("usr/lib/*-linux-gnu"))
    paths = [modules.parent, modules, machine, root / "lib" / machine.name]
    argv = [root / "usr/sbin/syslog-ng", "-F", "--no-caps", "-f", folder / "syslog-ng.conf"]
    argv += ["-R", folder / "persist", "-p", folder / "pid", "-c", folder / "control"]
    argv += [f"--module-path={modules}"]
    return Part(
        argv,
        log=folder / "syslog-ng.log",
        port=number,
        env={**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, paths))},
    )


@contextmanager
def postgres(password: str) -> Iterator[tuple[Part, str]]:
    """Yield a PostgreSQL server and the URL of its superuser ``audit``, database left out.

    It refuses to run as root, and its user cannot look into pytest's folders: root gives it one
    of its own, and runs it as ``postgres``.
    """
    folder = Path(tempfile.mkdtemp(prefix="tests-postgres-"))
    run_as: list[str] = []
    if os.getuid() == 0:
        run_as = ["/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        shutil.chown(folder, "postgres", "postgres")
    secret = folder / "password"
    secret.write_text(password)
    secret.chmod(0o644)
    try:
        argv = [program("initdb"), "-D", folder / "db", "-U", "audit", "--no-sync", "-E", "UTF8"]
        argv += ["-A", "scram-sha-256", "--pwfile", secret, "--locale=C.UTF-8"]
        run([*run_as, *argv], check=True)
        port = free_port()
        argv = [program("postgres"), "-D", folder / "db", "-k", folder, "-p", str(port)]
        argv += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        log = folder / "log"

        def ready() -> bool:  # it listens before it serves
            return log.exists() and "ready to accept connections" in log.read_text(
                "utf-8", "replace"
            )

        part = Part([*run_as, *argv], log=log, port=port, ready=ready)
        with part:
            yield part, f"postgresql://audit:{password}@127.0.0.1:{port}"
    finally:
        shutil.rmtree(folder)


@contextmanager
def silent_peer(port: int) -> Iterator[socket.socket]:
    """Yield a TCP connection to `port` that says nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        yield peer


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Have the system refuse any new thread: none has room for such a stack."""
    threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(0)
