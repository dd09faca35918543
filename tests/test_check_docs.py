"""The check of the documentation finds what it is there to find."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "check_docs.py"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("check_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES = {
    "a link to no file": ("[a](no.md)", [(1, "no such file: no.md")]),
    "a link to no heading": ("# Yes\n\n[a](#no)", [(3, "no such heading: #no")]),
    "a link to a heading": ("# Yes, `this` one!\n\n[a](#yes-this-one)", []),
    "the second heading of a name": ("# A\n# A\n[a](#a-1)", []),
    "a link to the network is not followed": ("[a](https://example.org/no#no)", []),
    "a link in a code block": ("```\n[a](no.md)\n```\n", []),
    "TOML that does not parse": ("\n```toml\na = \n```\n", [(2, "Invalid value")]),
    "a configuration with a wrong key": (
        "```toml\n# node.toml\n[[listener]]\nprt = 1\n```\n",
        [(1, "did you mean 'port'?")],
    ),
    "a block in a list": (
        "1. a\n\n   ```toml\n   # node.toml\n   [[listener]]\n   prt = 1\n   ```\n",
        [(3, "did you mean 'port'?")],
    ),
    "other TOML": ("```toml\nprt = 1\n```\n", []),
    "Python that does not compile": ("```python\nif:\n```\n", [(1, "line 1 of the block")]),
    "a command with an unknown option": (
        "```sh\ncd x && dicom-secure-node config check --nonsense | head\n```\n",
        [(1, "unrecognized arguments: --nonsense")],
    ),
    "a good command": ("```console\n$ .venv/bin/dicom-secure-node config show | less\n```\n", []),
    "the name as an argument": ("```sh\ncd dicom-secure-node --nonsense\n```\n", []),
    "a block without an end": ("```sh\nls\n", [(1, "does not end")]),
}


@pytest.mark.parametrize(("text", "want"), PAGES.values(), ids=PAGES)
def test_problems_of_a_page(
    text: str,
    want: list[tuple[int, str]],
    check: ModuleType,
    tmp_path: Path,
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    found = list(check.problems(page))
    assert len(found) == len(want)
    for (line, problem), (want_line, words) in zip(found, want, strict=True):
        assert line == want_line
        assert words in problem


def test_the_index_leads_to_every_page() -> None:
    docs = SCRIPT.parent.parent / "docs"
    index = (docs / "index.md").read_text(encoding="utf-8")
    pages = {str(page.relative_to(docs)) for page in docs.rglob("*.md")} - {"index.md"}
    assert {page for page in pages if f"]({page})" not in index} == set()
