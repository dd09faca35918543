"""Chromium, driven over the WebDriver protocol (W3C) with nothing but ``http.client``.

It trusts one certificate by its public key and no network service of its maker is asked.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests import parts

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver section 12
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """A browser window.

    Attributes
    ----------
    url : str
        Of the pages; addresses below are seen from it.
    """

    def __init__(self, driver: int, session: str, url: str) -> None:
        self.url = url
        self._driver = driver
        self._session = session

    def open(self, path: str) -> None:
        """Go to a page and wait until it is loaded."""
        self._call("POST", "/url", url=self.url + path)

    @property
    def path(self) -> str:
        """Where it is, without the host."""
        return str(self._call("GET", "/url")).removeprefix(self.url)

    @property
    def title(self) -> str:
        """The title of the page."""
        return str(self._call("GET", "/title"))

    def texts(self, selector: str) -> list[str]:
        """Return the visible text of all elements a CSS selector finds."""
        return [self._call("GET", f"/element/{one}/text") for one in self._find(selector)]

    def count(self, selector: str) -> int:
        """Return how many elements a CSS selector finds."""
        return len(self._find(selector))

    def style(self, selector: str, name: str) -> str:
        """Return a computed property of the first element a selector finds."""
        return str(self._call("GET", f"/element/{self._find(selector)[0]}/css/{name}"))

    def box(self, selector: str) -> dict[str, float]:
        """Return place and size of the first element a selector finds."""
        found: dict[str, float] = self._call("GET", f"/element/{self._find(selector)[0]}/rect")
        return found

    def click(self, selector: str) -> None:
        """Click the first element a selector finds."""
        self._call("POST", f"/element/{self._find(selector)[0]}/click")

    def follow(self, selector: str) -> None:
        """Click what leads to another page, and wait until that is loaded."""
        (here,) = self._find("html")
        self.click(selector)
        parts.wait_until(
            lambda: self._answer("GET", f"/element/{here}/name")[0] != 200, "another page"
        )
        parts.wait_until(lambda: self._find("body"), "its body")

    def type(self, selector: str, text: str) -> None:
        """Type into the first element a selector finds."""
        self._call("POST", f"/element/{self._find(selector)[0]}/value", text=text)

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        self._call("POST", "/window/rect", width=width, height=height)

    def cookies(self) -> dict[str, dict[str, Any]]:
        """Return the cookies by name."""
        return {one["name"]: one for one in self._call("GET", "/cookie")}

    def complaints(self) -> list[str]:
        """Return what the browser's console has, e.g. breaches of the content security policy."""
        return [one["message"] for one in self._call("POST", "/se/log", type="browser")]

    def alert(self) -> bool:
        """Return whether a dialogue of a script is open."""
        return self._answer("GET", "/alert/text")[0] == 200

    def screenshot(self, file: Path) -> None:
        """Write what is to be seen, as PNG."""
        file.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def _find(self, selector: str) -> list[str]:
        found = self._call("POST", "/elements", using="css selector", value=selector)
        return [one[_ELEMENT] for one in found]

    def _call(self, method: str, path: str, **body: Any) -> Any:
        status, value = self._answer(method, path, **body)
        assert status == 200, value
        return value

    def _answer(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        return ask(self._driver, method, f"/session/{self._session}{path}", **body)


def ask(port: int, method: str, path: str, **body: Any) -> tuple[int, Any]:
    """Send one command to a driver and return status and value."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if method == "POST" else None)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["value"]
    finally:
        connection.close()


def key_hash(certificate: Path) -> str:
    """Return the hash of a certificate's public key, as Chromium takes it."""
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    octets = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(octets).digest()).decode("ascii")


@contextmanager
def browsing(
    url: str, certificate: Path, folder: Path, *, width: int = 1200, height: int = 900
) -> Iterator[Browser]:
    """Run a browser that trusts the server with `certificate`; `folder` is for its profile."""
    port = parts.free_port()
    options = [
        *_OPTIONS,
        f"--ignore-certificate-errors-spki-list={key_hash(certificate)}",
        f"--user-data-dir={folder / 'chromium'}",
        f"--window-size={width},{height}",
    ]
    capabilities = {
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": parts.program("chromium"), "args": options},
        "goog:loggingPrefs": {"browser": "ALL"},
    }
    argv = ["chromedriver", f"--port={port}"]
    with parts.Part(argv, log=folder / "chromedriver.log", port=port):
        status, value = ask(port, "POST", "/session", capabilities={"alwaysMatch": capabilities})
        assert status == 200, value
        browser = Browser(port, value["sessionId"], url)
        try:
            yield browser
        finally:
            ask(port, "DELETE", f"/session/{value['sessionId']}")
