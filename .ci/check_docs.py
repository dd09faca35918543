"""Check README, docs and examples' pages: nothing is run, everything has to be right.

- relative links and anchors resolve
- ```toml blocks parse; one that begins with ``# node.toml`` is loaded as a configuration
- ```python blocks compile
- commands of ours in ```sh and ```console blocks parse

Usage: ``python .ci/check_docs.py``; prints each problem with file and line, and ends with 1.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

from dicom_secure_node import commands, config
from dicom_secure_node.errors import ConfigurationError

ROOT = Path(__file__).parent.parent

# Indented ones belong to a list.
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def pages() -> list[Path]:
    """Return every Markdown page of the repository."""
    found = [*ROOT.glob("*.md")]
    for folder in ("docs", "conf", "certs", "examples", "benchmarks", "tests"):
        found += (ROOT / folder).rglob("*.md")
    return sorted(found)


def line_of(text: str, position: int) -> int:
    """Return the line number of a position."""
    return text.count("\n", 0, position) + 1


def without_code(text: str) -> str:
    """Return the text with code blocks blanked, line numbers unchanged."""
    return FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page, made from its headings as GitHub makes them."""
    seen: dict[str, int] = {}
    found = set()
    for heading in HEADING.findall(without_code(page.read_text(encoding="utf-8"))):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = seen.get(anchor, 0)
        seen[anchor] = count + 1
        found.add(f"{anchor}-{count}" if count else anchor)
    return found


def broken_links(page: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield line and problem of each link that leads nowhere in this repository."""
    plain = without_code(text)
    for found in LINK.finditer(plain):
        target, _, anchor = found[1].partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        goal = (page.parent / target).resolve() if target else page
        line = line_of(plain, found.start())
        if not goal.exists():
            yield line, f"no such file: {target}"
        elif target and not goal.is_relative_to(ROOT.resolve()):
            yield line, f"leads out of the repository: {target}"
        elif anchor and goal.suffix == ".md" and anchor not in anchors(goal):
            yield line, f"no such heading: {found[1]}"


def bad_toml(code: str) -> str | None:
    """Return what is wrong with a block of TOML."""
    try:
        tomllib.loads(code)
        if code.startswith("# node.toml"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "node.toml"
                path.write_text(code, encoding="utf-8")
                config.load(path)
    except (tomllib.TOMLDecodeError, ConfigurationError) as exc:
        return str(exc)
    return None


def bad_python(code: str) -> str | None:
    """Return what is wrong with a block of Python."""
    try:
        compile(code, "block", "exec")
    except SyntaxError as exc:
        return f"{exc.msg} (line {exc.lineno} of the block)"
    return None


def our_commands(code: str) -> Iterator[list[str]]:
    """Yield the words after our program's name, for each time a shell block calls it."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        for i, word in enumerate(words):
            starts = i == 0 or set(words[i - 1]) <= set("&|;(") or words[i - 1] in ("$", "sudo")
            if Path(word).name == commands.PROGRAM and starts:
                rest = words[i + 1 :]
                ends = [n for n, w in enumerate(rest) if w and set(w) <= set("&|;<>()")]
                yield rest[: ends[0]] if ends else rest


def bad_shell(code: str) -> str | None:
    """Return what is wrong with the commands of ours in a shell block."""
    for words in our_commands(code):
        parser, _ = commands.build_parser(words)
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                parser.parse_args(words)
        except SystemExit as exc:
            if exc.code:
                return f"{shlex.join(words)}: {said.getvalue().splitlines()[-1]}"
    return None


CHECKS = {"toml": bad_toml, "python": bad_python, "sh": bad_shell, "console": bad_shell}


def problems(page: Path) -> Iterator[tuple[int, str]]:
    """Yield line and problem of a page."""
    text = page.read_text(encoding="utf-8")
    yield from broken_links(page, text)
    for found in FENCE.finditer(text):
        language, code = found[2].strip(), textwrap.dedent(found[3])
        problem = CHECKS[language](code) if language in CHECKS else None
        if problem:
            yield line_of(text, found.start()), problem
    if without_code(text).count("```"):
        yield line_of(text, text.rindex("```")), "a code block does not end"


def main() -> int:
    """Check every page and return the exit code."""
    count = 0
    for page in pages():
        for line, problem in problems(page):
            print(f"{page.relative_to(ROOT)}:{line}: {problem}")
            count += 1
    print(f"{len(pages())} pages, {count} problems")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
