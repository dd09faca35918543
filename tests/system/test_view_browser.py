"""The pages in Chromium: they render, no script runs, and a phone shows all of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit.collected import fill, syslog
from tests.audit.samples import every_kind, octets
from tests.browser import Browser, browsing
from tests.system.viewing import Viewing

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def viewing(template_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewing]:
    home = Path(shutil.copytree(template_home, tmp_path_factory.mktemp("browser") / "home"))
    sent = [octets(one) for text in ("Doe^J", HOSTILE) for one in every_kind(text).values()]
    fill(home / "collected", [*map(syslog, sent), syslog(b"<AuditMessage/>")])
    with Viewing(home, users={"auditor": "tiger"}) as running:
        yield running


@pytest.fixture(scope="module")
def browser(viewing: Viewing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("chromium")
    with browsing(viewing.url, viewing.certificate, folder) as window:
        window.open("/counts?range=week")
        assert window.title.startswith("Log in")
        window.type("[name=user]", "auditor")
        window.type("[name=passcode]", "tiger")
        window.follow(".login button")
        assert window.path == "/counts?range=week"  # where one wanted to go
        yield window
        assert window.complaints() == []


def test_the_timeline(browser: Browser) -> None:
    browser.open("/")
    assert browser.texts("h1") == ["Timeline"]
    assert browser.count("tbody tr") == 50
    assert HOSTILE in " ".join(browser.texts("tbody tr:nth-child(2)"))
    assert not browser.alert()
    assert browser.style("th", "position") == "sticky"
    failed = browser.style(".outcome-8", "background-color")
    assert failed != browser.style(".outcome-0", "background-color")
    assert browser.texts(".outcome-8")[0] == "serious failure"
    browser.follow("[rel=next]")
    assert browser.count("tbody tr") > 0


def test_the_form_filters(browser: Browser) -> None:
    browser.open("/")
    browser.click("[name=outcome] option[value=failures]")
    browser.type("[name=patient]", "Doe*")
    browser.follow(".filters button")
    assert "outcome=failures" in browser.path
    assert set(browser.texts("tbody .mark:not(.outcome-0)")) <= {"serious failure", "major failure"}
    assert browser.count("[name=outcome] option[value=failures][selected]") == 1


def test_a_message(browser: Browser) -> None:
    browser.open("/?valid=no")
    browser.follow("tbody a")
    assert browser.texts("h1")[0].startswith("Record ")
    assert "what" in browser.texts("h2")[0].lower()
    assert browser.texts(".rules tbody td:first-child code")
    assert "<AuditMessage/>" in browser.texts("pre")[0]


def test_the_plot(viewing: Viewing, browser: Browser) -> None:
    browser.open("/counts?since=2026-11-22T09:00&until=2026-11-22T12:00")
    box = browser.box("svg.plot")
    assert box["width"] > 900
    assert box["height"] > 200
    assert browser.count("svg rect.all") > 10
    assert browser.box("svg rect.all")["height"] > 1
    assert browser.style("svg rect.failed", "fill") != browser.style("svg rect.all", "fill")
    assert browser.count("svg text.time") > 2


def test_the_cookie_is_out_of_reach(browser: Browser) -> None:
    cookie = browser.cookies()["__Host-session"]
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")


@pytest.mark.parametrize("path", ["/", "/failures", "/counts?since=2026-11-22T00:00", "/message/5"])
def test_a_phone(path: str, browser: Browser) -> None:
    browser.resize(500, 900)
    browser.open(path)
    box = browser.box("main")
    assert box["width"] <= 500
    for selector in ("header", "h1", "table", ".filters", "svg", "pre"):
        if browser.count(selector):
            assert browser.box(selector)["x"] + browser.box(selector)["width"] <= 501, selector
    browser.resize(1200, 900)


def test_the_logout(viewing: Viewing, tmp_path: Path) -> None:
    with browsing(viewing.url, viewing.certificate, tmp_path) as window:
        window.open("/login")
        window.type("[name=user]", "auditor")
        window.type("[name=passcode]", "tiger")
        window.follow(".login button")
        assert window.path == "/"
        window.follow(".logout button")
        assert window.path == "/login"
        window.open("/")
        assert window.path.startswith("/login")
