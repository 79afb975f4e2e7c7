"""The manual page of a spec: what it is, its fields and its sweep, from its own documentation."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import typing
from dataclasses import dataclass
from typing import Any, Literal

from relaxloss.specs import Spec, build, written

SECTION = re.compile(r"^(Attributes|Class attributes|Args|Raises|Returns|Example):$", re.MULTILINE)
FIELD = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", re.MULTILINE)
MARKUP = re.compile(r"(``|`)(.+?)\1")


@dataclass(frozen=True)
class Field:
    """A field of a spec: its name, its default as it is written, and what it is."""

    name: str
    default: str
    about: str


@dataclass(frozen=True)
class Page:
    """What a spec says of itself.

    Attributes:
        title: ``defense relaxloss``, for one.
        paragraphs: of its module, then of its class; formulas and lists keep their lines.
        fields: in the order of the class.
        sweep: the settings of its privacy-utility curve as strings, if it has one.
        needs: what an attack must be given, in words.
    """

    title: str
    paragraphs: tuple[str, ...]
    fields: tuple[Field, ...]
    sweep: tuple[str, ...]
    needs: str


def page(cls: type[Spec], kind: str) -> Page:
    """The page of a class of specs; what it does not document is left empty."""
    module = inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "") if _about_it(cls.__module__) else ""
    own = SECTION.split(inspect.cleandoc(cls.__doc__ or ""))[0]
    described: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        described |= _attributes(inspect.cleandoc(base.__doc__ or ""))
    hints = typing.get_type_hints(cls)
    fields = tuple(
        Field(field.name, _default(field), described.get(field.name) or _choices(hints[field.name]))
        for field in dataclasses.fields(cls)
    )
    sweep = tuple(str(build(cls, given)) for given in getattr(cls, "sweep", ()))
    needs = str(getattr(cls, "needs", ""))
    return Page(f"{kind} {cls.name}".strip(), (*_paragraphs(module), *_paragraphs(own)), fields, sweep, needs)


def _about_it(module: str) -> bool:
    """Whether a module's words are about the specs that it holds."""
    return module != "__main__" and (module.partition(".")[0] != "relaxloss" or module.count(".") > 1)


def _attributes(doc: str) -> dict[str, str]:
    parts = SECTION.split(doc)
    texts = [text for section, text in zip(parts[1::2], parts[2::2], strict=True) if section == "Attributes"]
    found = [match for text in texts for match in FIELD.findall(text)]
    return {name: plain(" ".join(about.split())) for names, about in found for name in names.split(", ")}


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return written(field.default)
    return "" if field.default_factory is dataclasses.MISSING else written(field.default_factory())


def _choices(hint: Any) -> str:
    return ", ".join(map(str, typing.get_args(hint))) if typing.get_origin(hint) is Literal else ""


def _paragraphs(doc: str) -> list[str]:
    return [_joined(plain(block)) for block in re.split(r"\n\s*\n", doc.strip()) if block.strip()]


def _joined(block: str) -> str:
    """One line, unless it is a list or is set in."""
    return block if re.search(r"^(\s|\* |\d\. )", block, re.MULTILINE) else " ".join(block.split())


def plain(text: str) -> str:
    """The text without the marks of code."""
    return MARKUP.sub(r"\2", text)
