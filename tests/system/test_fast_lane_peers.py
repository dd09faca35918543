"""What DCMTK, Orthanc and pynetdicom send through the fast lane is kept byte for byte.

Over plain TCP, TLS 1.2 and TLS 1.3, in PDUs of 4 KiB to 1 MiB, instances of nothing but a header
up to 2 GiB. What each of them sent is told by a second receiver, or by the file itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from tests import parts
from tests.parts import wait_until
from tests.system.running import TRANSFERRED, Node, cli, data_set

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
PDU_LENGTHS = (4_096, 16_384, 131_072, 1_048_576)  # PS3.8 D.1: what the node announces
SIZES = (0, 2, 1_000, 20_480, 131_064, 524_288, 5_000_002)  # bytes of pixel data
TRANSPORTS = ("plain", "TLSv1.2", "TLSv1.3")
PLAIN = """
[[listener]]
name = "plain"
port = 0
profile = "plain"
"""

# DCMTK and Orthanc have no option for it, but OpenSSL's own file counts for both.
ONLY_TLS12 = """
openssl_conf = all
[all]
ssl_conf = modules
[modules]
system_default = limits
[limits]
MaxProtocol = TLSv1.2
"""


def instances(folder: Path) -> list[Path]:
    """Write one CT for each size, explicit VR little endian, and return the files."""
    ds = dcmread(str(get_testdata_file("CT_small.dcm")))
    assert isinstance(ds, Dataset)
    ds.remove_private_tags()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    paths = []
    for number, size in enumerate(SIZES, 1):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.9.{number}"
        ds.InstanceNumber = number
        ds["PixelData"].value = (bytes(range(251)) * (size // 251 + 1))[:size]
        paths.append(folder / f"{size}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's data set."""
    return hashlib.sha256(data_set(path)).hexdigest()


@pytest.fixture
def only_tls12(tmp_path: Path) -> dict[str, str]:
    """The environment in which OpenSSL speaks nothing newer than TLS 1.2."""
    path = tmp_path / "openssl.cnf"
    path.write_text(ONLY_TLS12)
    return {"OPENSSL_CONF": str(path)}


@pytest.fixture(params=PDU_LENGTHS, ids=lambda length: f"{length >> 10} KiB")
def node(request: pytest.FixtureRequest, home: Path) -> Iterator[Node]:
    """A node that announces PDUs of some length, on a TLS and a plain port."""
    settings = PLAIN + f"\n[limits]\npdu_length = {request.param}\n"
    with Node(home, settings) as running:
        yield running


def told(folder: Path) -> set[str]:
    """Return the digests of what DCMTK's storescp has written, bit for bit: the second receiver."""
    return {digest(path) for path in (folder / "received").iterdir()}


def forget(node: Node) -> None:
    """Remove what is kept, so that the next sender may send the same."""
    for path in node.kept().values():
        path.unlink()


def test_DCMTK(node: Node, tmp_path: Path, only_tls12: Mapping[str, str]) -> None:
    paths = instances(tmp_path)
    options = ["-R", "-xe", "--max-send-pdu", "131072", "127.0.0.1"]
    with parts.storescp(tmp_path, "+B", "+xa") as judge:
        parts.run(["storescu", *options, str(judge.port), *paths], check=True)
    for transport in TRANSPORTS:
        tls = [] if transport == "plain" else node.credential()
        port = node.ports["plain"] if transport == "plain" else node.port
        env = {**os.environ, **(only_tls12 if transport == "TLSv1.2" else {})}
        done = parts.run(["storescu", *tls, *options, str(port), *paths], env=env)
        assert done.returncode == 0, done.stderr
        assert node.kept().keys() == told(tmp_path)
        forget(node)
    assert_transports(node)


def assert_transports(node: Node) -> None:
    """Each transport was used once, and every transfer audited whole."""
    wait_until(lambda: len(node.records(TRANSFERRED)) == len(TRANSPORTS), "all is audited")
    assert [one.instances for one in node.records(TRANSFERRED)] == [len(SIZES)] * len(TRANSPORTS)


@pytest.mark.parametrize("node", [PDU_LENGTHS[0], PDU_LENGTHS[-1]], indirect=True)
def test_Orthanc(node: Node, tmp_path: Path, only_tls12: Mapping[str, str]) -> None:
    paths = instances(tmp_path)
    pki = node.home / "pki"
    with parts.storescp(tmp_path, "+B", "+xa") as judge:
        for transport in TRANSPORTS:
            where = {
                "judge": (judge.port, False),
                "node": (node.ports["plain"], False) if transport == "plain" else (node.port, True),
            }
            settings = {
                "HttpPort": parts.free_port(),
                "DicomTlsCertificate": str(pki / "client.crt"),
                "DicomTlsPrivateKey": str(pki / "client.key"),
                "DicomTlsTrustedCertificates": str(pki / "ca.crt"),
                "DicomModalities": {
                    name: {"AET": "ANY", "Host": "127.0.0.1", "Port": port, "UseDicomTls": tls}
                    for name, (port, tls) in where.items()
                },
            }
            env = only_tls12 if transport == "TLSv1.2" else {}
            folder = tmp_path / transport
            with parts.orthanc(folder, env={**os.environ, **env}, **settings) as sender:
                web = f"http://127.0.0.1:{settings['HttpPort']}"
                ids = [
                    json.loads(post(f"{web}/instances", path.read_bytes()))["ID"] for path in paths
                ]
                for name in where:
                    body = json.dumps({"Resources": ids, "Synchronous": True}).encode()
                    done = json.loads(post(f"{web}/modalities/{name}/store", body))
                    assert done["FailedInstancesCount"] == 0, (done, sender.output)
            assert node.kept().keys() == told(tmp_path)
            forget(node)
    assert_transports(node)


def post(url: str, body: bytes) -> bytes:
    """Return the answer to an HTTP POST."""
    request = urllib.request.Request(url, body)  # noqa: S310 - of our own making
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return bytes(answer.read())


def test_pynetdicom(node: Node, tmp_path: Path) -> None:
    paths = instances(tmp_path)
    pki = node.home / "pki"
    for transport in TRANSPORTS:
        tls = None
        if transport != "plain":
            context = node.tls_client(pki / "client.crt", pki / "client.key")
            context.maximum_version = ssl.TLSVersion[transport.replace(".", "_")]
            tls = (context, "127.0.0.1")
        ae = AE("PYNETDICOM")
        ae.add_requested_context(CT_STORAGE, ExplicitVRLittleEndian)
        port = node.ports["plain"] if transport == "plain" else node.port
        assoc = ae.associate("127.0.0.1", port, tls_args=tls)
        assert assoc.is_established
        for path in paths:
            assert assoc.send_c_store(path).Status == 0x0000
        assoc.release()
        # It reads and writes the data set anew, but pydicom has written it before.
        assert node.kept().keys() == {digest(path) for path in paths}
        forget(node)
    assert_transports(node)


def test_our_own_send(node: Node, tmp_path: Path) -> None:
    paths = instances(tmp_path)
    where = ["send", "127.0.0.1", str(node.port), "--credential", node.home / "pki"]
    done = cli(*where, *paths)
    assert done.returncode == 0, done.stderr
    assert node.kept().keys() == {digest(path) for path in paths}


def test_two_gibibytes_by_DCMTK(home: Path, tmp_path: Path) -> None:
    size, seeds = 1 << 31, {0: b"first", (1 << 30) + 7: b"middle", (1 << 31) - 4: b"last"}
    path = instances(tmp_path)[0]
    ds = dcmread(path)
    del ds.PixelData
    ds.save_as(path)
    with path.open("r+b") as file:  # a hole but for a few bytes
        file.seek(0, os.SEEK_END)
        file.write(b"\xe0\x7f\x10\0OW\0\0" + size.to_bytes(4, "little"))
        start = file.tell()
        file.truncate(start + size)
        for offset, seed in seeds.items():
            file.seek(start + offset)
            file.write(seed[:4])
    with Node(home) as node:
        options = ["-R", "-xe", *node.credential(), "127.0.0.1", str(node.port)]
        parts.run(["storescu", *options, path], check=True, timeout=100)
        ((_, kept),) = [(one.stat().st_size, one) for one in (home / "archive").rglob("*.dcm")]
        assert _tail(kept, size) == _tail(path, size)
        peak = int(Path(f"/proc/{node.pid}/status").read_text().partition("VmHWM:")[2].split()[0])
        assert peak < 160 << 10, "KiB: memory does not grow with an instance"


def _tail(path: Path, size: int) -> str:
    """Return the SHA-256 of the last `size` bytes of a file."""
    with path.open("rb") as file:
        file.seek(-size, os.SEEK_END)
        return hashlib.file_digest(file, "sha256").hexdigest()
