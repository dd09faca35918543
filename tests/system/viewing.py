"""``audit view`` as its users run it: a process of its own, asked over TLS by ``http.client``."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

from dicom_secure_node.audit.reading import Summary, summarise
from dicom_secure_node.audit.validate import validate
from tests import parts
from tests.system.running import COMMAND
from tests.system.served import Served

_LISTENING = re.compile(r"listening on https://127\.0\.0\.1:(\d+)")
_TOKEN = re.compile(r'name="token" value="([^"]+)"')


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    octets: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.octets.decode()

    @property
    def token(self) -> str:
        """The token of the first form in it."""
        found = _TOKEN.search(self.text)
        assert found, self.text
        return found[1]

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies it sets, with their attributes."""
        lines = self.headers.get_all("Set-Cookie") or []
        return {line.partition("=")[0]: line.partition("=")[2] for line in lines}


class Viewing(Served):
    """The pages while the ``with`` block runs; its home needs ``pki`` and ``collected``."""

    def __init__(self, home: Path, *options: str, users: Mapping[str, str] | None = None) -> None:
        super().__init__(home / "view-log.txt")
        self.home = home
        self.port = 0
        self._options = options
        for name, passcode in (users or {}).items():
            self.user("add", name, stdin=f"{passcode}\n")

    def user(self, action: str, name: str, stdin: str = "") -> None:
        """Change who may look."""
        argv = [*COMMAND, "user", action, "--home", str(self.home), "--file", "viewers.toml", name]
        parts.run(argv, stdin=stdin, check=True)

    @property
    def argv(self) -> list[str]:
        """The command."""
        words = ["audit", "view", "--home", str(self.home), "--port", "0"]
        # Nobody listens on port 1: what is reported stays in the trail, where `trail` reads it.
        return [*COMMAND, *words, "--report-to", "127.0.0.1:1", *self._options]

    def start(self) -> Self:
        """Start it and return once it listens."""
        self.launch(self.argv, self._ready, "the pages listening")
        return self

    def _ready(self) -> bool:
        found = _LISTENING.search(self.log)
        if found:
            self.port = int(found[1])
        return found is not None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://localhost:{self.port}"

    @property
    def certificate(self) -> Path:
        """What it shows."""
        return self.home / "pki" / "node.crt"

    def xml(self) -> list[str]:
        """Return the audit messages it has emitted; all are valid."""
        found = []
        for file in sorted((self.home / "view-trail").glob("*.ndjson")):
            lines = file.read_bytes().split(b"\n")[:-1]
            found += [str(json.loads(line)["xml"]) for line in lines]
        assert [one for one in found if not validate(one.encode()).valid] == []
        return found

    def trail(self, event: str = "", user: str = "") -> list[Summary]:
        """Return what they say, of one event and about one user if given."""
        return [
            said
            for said in map(summarise, (one.encode() for one in self.xml()))
            if event in ("", said.event.value if said.event else "")
            and (not user or user in {one.user_id for one in said.users})
        ]

    def visitor(self) -> Visitor:
        """Return somebody without a session."""
        return Visitor(self.port, self.home / "pki" / "ca.crt")

    def logged_in(self, user: str, passcode: str) -> Visitor:
        """Return somebody who has logged in."""
        visitor = self.visitor()
        answer = visitor.log_in(user, passcode)
        assert answer.status == 303, answer.text
        return visitor


class Visitor:
    """A browser's cookies, and no more of a browser."""

    def __init__(self, port: int, authority: Path) -> None:
        self.cookies: dict[str, str] = {}
        self._port = port
        self._context = ssl.create_default_context(cafile=str(authority))

    def ask(
        self,
        path: str,
        method: str = "GET",
        form: Mapping[str, str] | None = None,
        **headers: str,
    ) -> Answer:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPSConnection(
            "localhost", self._port, context=self._context, timeout=30
        )
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            pairs = (f"{name}={value}" for name, value in self.cookies.items())
            given.setdefault("Cookie", "; ".join(pairs))
        body = None
        if form is not None:
            method, body = "POST", urlencode(form)
            given.setdefault("Content-Type", "application/x-www-form-urlencoded")
        try:
            connection.request(method, path, body, given)
            raw = connection.getresponse()
            answer = Answer(raw.status, raw.headers, raw.read())
        finally:
            connection.close()
        for name, value in answer.cookies.items():
            self.cookies[name] = value.partition(";")[0]
        return answer

    def get(self, path: str) -> str:
        """Return a page that is there."""
        answer = self.ask(path)
        assert answer.status == 200, answer.text
        return answer.text

    def log_in(self, user: str, passcode: str, target: str = "/", **headers: str) -> Answer:
        """Fill in the form."""
        token = self.ask("/login").token
        fields = {"token": token, "user": user, "passcode": passcode, "next": target}
        return self.ask("/login", form=fields, **headers)
