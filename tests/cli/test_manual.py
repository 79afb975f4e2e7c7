"""Manual pages: every registered spec says what it is and what its fields are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest

from relaxloss import attacks, defenses, games, models
from relaxloss.report import spec_help
from relaxloss.specs import Spec
from relaxloss.training.task import Recipe

ALL = [*defenses.defenses, *attacks.attacks, *games.GAMES.values(), *models.models, Recipe]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.name or cls.__name__)
def test_every_spec_documents_itself_and_all_its_fields(cls: type[Spec]) -> None:
    page = spec_help.page(cls, "")
    assert page.paragraphs
    assert [field.name for field in page.fields] == [field.name for field in dataclasses.fields(cls)]
    assert all(field.about for field in page.fields)
    assert not any("`" in text for text in (*page.paragraphs, *(field.about for field in page.fields)))


@dataclass(frozen=True)
class Base(Spec):
    """A base.

    Attributes:
        old: from the base.
    """

    old: int = 1


@dataclass(frozen=True)
class Own(Base):
    """What it does,
    on two lines.

        ``x = 2 y``

    Attributes:
        first, second: two of them: both ``odd``,
            or `even`.
        old: from the subclass.

    Raises:
        UserError: never.
    """

    name: ClassVar[str] = "own"
    sweep: ClassVar[tuple[dict[str, float], ...]] = ({"first": 1}, {"first": 2.5})
    first: float = 1
    second: bool = True
    way: Literal["a", "b"] = "a"
    needed: tuple[int, ...] = dataclasses.field(default=(1, 2))


def test_a_page_is_made_of_the_docstrings() -> None:
    page = spec_help.page(Own, "thing")
    assert page.title == "thing own"
    assert page.paragraphs[-2:] == ("What it does, on two lines.", "    x = 2 y")
    assert [(field.name, field.default, field.about) for field in page.fields] == [
        ("old", "1", "from the subclass."),
        ("first", "1", "two of them: both odd, or even."),
        ("second", "true", "two of them: both odd, or even."),
        ("way", "a", "a, b"),
        ("needed", "1/2", ""),
    ]
    assert page.sweep == ("own", "own:first=2.5")
    assert not page.needs


def test_a_page_says_what_an_attack_needs() -> None:
    assert spec_help.page(attacks.attacks["loss"], "attack").needs == "the model's answers only"
    assert spec_help.page(attacks.attacks["grad_w_l1"], "attack").needs == "the query white_box"
    assert spec_help.page(attacks.attacks["lira"], "attack").needs == (
        "2 shadows or more trained on asked samples (the game random_halves), the query augmented"
    )
    assert "reference samples that are in no model" in spec_help.page(attacks.attacks["rmia"], "attack").needs
