"""HTML of templates. Everything is escaped, and everything invisible is spelt out, in one place."""

from __future__ import annotations

from datetime import datetime
from importlib.resources import files
from typing import Any

import jinja2

from dicom_secure_node.audit_web.text import visible
from dicom_secure_node.spec.audit import Code, group

OUTCOME_WORDS = {0: "success", 4: "minor failure", 8: "serious failure", 12: "major failure"}


def _shown(value: Any) -> Any:
    """Return what a template's expression is to show; the result is escaped after this."""
    if value is None:
        return ""
    # A piece of HTML a macro or the plot made is passed on as it is.
    return value if hasattr(value, "__html__") else visible(str(value))


def _moment(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S}" if when is not None else ""


def _code(code: Code | None) -> str:
    return (code.meaning or code.value) if code is not None else "not readable"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_template),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": _moment, "code": _code}
    environment.globals |= {"OUTCOMES": OUTCOME_WORDS, "EVENTS": dict(group("CID 400"))}
    return environment


def _template(name: str) -> str:
    return (files(__package__) / "pages" / name).read_text("utf-8")


_ENVIRONMENT = _environment()


def page(name: str, **values: Any) -> str:
    """Return the page of a template with `values` in it."""
    return _ENVIRONMENT.get_template(f"{name}.html").render(values)


def style() -> bytes:
    """Return the style sheet."""
    return (files(__package__) / "pages" / "style.css").read_bytes()
