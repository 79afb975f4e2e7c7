"""Specs: object, dict and string are one thing; keys are pinned; errors say what to do."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import NonNegativeFloat

from relaxloss import defenses
from relaxloss.defenses import Composed, NoDefense, RelaxLoss
from relaxloss.errors import UserError
from relaxloss.specs import Registry, Spec, build, content_key, digest, plain, split_list
from relaxloss.training.task import Recipe


@dataclass(frozen=True)
class Thing(Spec):
    name: ClassVar[str] = "thing"
    strength: NonNegativeFloat = 1.0
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = (1, 2)
    cap: float | None = None
    on: bool = True


@given(
    st.builds(
        Thing,
        strength=st.floats(0, 1e6),
        kind=st.sampled_from(["a", "b"]),
        sizes=st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple),
        cap=st.none() | st.floats(-1, 1),
        on=st.booleans(),
    )
)
def test_string_and_dict_rebuild_the_object_and_its_key(thing: Thing) -> None:
    registry: Registry[Thing] = Registry("thing", "relaxloss.models")
    registry.register("thing")(Thing)
    assert registry.parse(str(thing)) == thing
    assert registry.parse(plain(thing)) == thing
    assert content_key("s", 1, it=registry.parse(str(thing))) == content_key("s", 1, it=thing)


def test_equal_numbers_of_other_types_are_the_same_spec() -> None:
    assert RelaxLoss(alpha=1) == RelaxLoss(alpha=1.0)
    assert content_key("x", 1, d=RelaxLoss(alpha=1)) == content_key("x", 1, d=RelaxLoss(alpha=1.0))
    assert repr(RelaxLoss(alpha=1)) == "RelaxLoss(alpha=1.0, flatten='all', upper=1.0)"


def test_keys_depend_on_every_field_on_the_version_and_on_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Thing()
    others = [replace(base, **change) for change in
              ({"strength": 2}, {"kind": "b"}, {"sizes": (1,)}, {"cap": 0.0}, {"on": False})]  # fmt: skip
    keys = {content_key("s", 1, it=thing) for thing in (base, *others)}
    keys |= {content_key("s", 2, it=base), content_key("t", 1, it=base)}
    monkeypatch.setattr(Thing, "version", 2)
    keys.add(content_key("s", 1, it=base))
    assert len(keys) == 9


def test_golden_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """These values must not change: stored results are found by them."""
    thing = Thing()
    monkeypatch.setattr(Thing, "__module__", "relaxloss.thing")  # a third party's has a digest of its code besides
    assert content_key("golden", 1, a=1, b=[1.5, None, "x"]) == "949cb8345577a5ef36b52a4a"
    assert content_key("golden", 1, spec=thing) == "73798f84f8ae4727c0133828"


LOUD = """
from dataclasses import dataclass
from relaxloss.specs import Registry, Spec
@Registry("loud", "relaxloss.models").register("loud")
@dataclass(frozen=True)
class Loud(Spec):
    def loss(self, logits, targets, state):
        return BODY
"""


def test_edited_code_of_a_third_party_has_another_key_once_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "loud_module.py"
    file.write_text(LOUD.replace("BODY", "1"))
    module = importlib.import_module("loud_module")
    file.write_text(LOUD.replace("BODY", "10"))
    before = content_key("s", 1, it=module.Loud())
    file.write_text(LOUD.replace("BODY", "100"))
    assert content_key("s", 1, it=module.Loud()) == before  # the code in memory is still the old one
    file.write_text(LOUD.replace("BODY", "10"))
    importlib.reload(module)
    assert content_key("s", 1, it=module.Loud()) != before  # which was that of the file as it was imported


def test_code_that_is_typed_in_has_a_digest_of_its_own_lines() -> None:
    def made(body: str) -> type:
        names: dict[str, type] = {"__name__": "__main__"}  # type: ignore[dict-item]
        exec(f"class Typed:\n    def loss(self):\n        return {body}", names)
        return names["Typed"]

    assert digest(made("1")) == digest(made("1")) != digest(made("2"))


TYPED = """
import contextlib, functools
SCALE = {scale}
TABLE = dict(a=[{table}, len], b=frozenset("abc"))
TABLE["itself"] = TABLE
class Base:
    def shared(self):
        return {base}
class Kind:
    def __init__(self, size):
        self.size = size
    def of(self):
        return {kind}
KIND = Kind({instance})
def helper(z):
    return SCALE * z + TABLE["a"][0] + KIND.of()
def wrapping(function):
    @functools.wraps(function)
    def wrapper(*args):
        return {wrapper} * function(*args)
    return wrapper
@wrapping
def wrapped(z):
    return {wrapped}
def two(a, b):
    return a * b
part = functools.partial(two, {part})
def made(k):
    def inner(z):
        return k * z
    return inner
closed = made({closed})
class Typed(Base):
    SIGN = {sign}
    func = lambda self: 0
    @staticmethod
    def fixed(z):
        return {static}
    @classmethod
    def of(cls):
        return {made}
    @property
    def half(self):
        return {half}
    @functools.cached_property
    def kept(self):
        return {kept}
    @contextlib.contextmanager
    def within(self):
        yield {within}
    def loss(self, z, scale={default}):
        return (lambda: {inner} * self.SIGN * helper(wrapped(part(closed(z)))))()
"""
PIECES = sorted(set(re.findall(r"{(\w+)}", TYPED)))


@pytest.mark.parametrize("change", PIECES)
def test_the_digest_of_what_is_typed_in_knows_all_that_it_is_made_of(change: str) -> None:
    """Constants, helpers, bases, and methods of every kind: an edit of any of them makes other results."""
    plain = dict.fromkeys(PIECES, 1)

    def made(numbers: dict[str, int]) -> type:
        names: dict[str, type] = {"__name__": "__main__"}  # type: ignore[dict-item]
        exec(TYPED.format(**numbers), names)
        return names["Typed"]

    assert digest(made(plain)) == digest(made(plain)) != digest(made(plain | {change: 2}))


def test_a_helper_that_is_edited_in_its_own_cell_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("class Typed:\n    def loss(self, z):\n        return helper(z)", names)
    found = [digest(names["Typed"])]  # as when it is registered, before there is a helper
    for factor in (1, 2, 1):
        exec(f"def helper(z):\n    return {factor} * z", names)
        found.append(digest(names["Typed"]))
    assert len(set(found)) == 3
    assert found[1] == found[3]


def test_the_digest_of_what_is_typed_in_is_the_same_in_every_process() -> None:
    names = dict.fromkeys(PIECES, 1)
    text = "from relaxloss.specs import digest\n" + TYPED.format(**names) + "print(digest(Typed))"
    found = {
        subprocess.run(
            [sys.executable, "-"], input=text, capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in "123"
    }  # fmt: skip
    assert len(found) == 1


def test_a_script_that_runs_is_digested_whole(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    text = "from relaxloss.specs import digest\nSCALE = BODY\nclass Mine:\n    def loss(self):\n        return SCALE\n"
    found = []
    for body in ("1", "1", "2"):
        script.write_text((text + "print(digest(Mine))").replace("BODY", body))
        said = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
        found.append(said.stdout.strip())
    assert found[0] == found[1] != found[2]


def test_a_spec_with_fields_must_be_a_dataclass() -> None:
    with pytest.raises(UserError, match=r"'loud': Loud has the fields factor and is no dataclass.*@dataclass"):

        @defenses.defenses.register("loud")
        class Loud(NoDefense):
            factor: float = 2.0

    assert "loud" not in defenses.defenses.names()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("relaxlos:alpha=1", "did you mean 'relaxloss'"),
        ("relaxloss:alfa=1", "did you mean 'alpha'"),
        ("relaxloss:alpha=-1", "alpha=-1"),
        ("relaxloss:alpha=x", "valid number"),
        ("relaxloss:alpha=nan", "alpha"),
        ("relaxloss:flatten=some", "'all', 'misclassified' or 'official'"),
        ("relaxloss:upper=0", "upper=0"),
        ("relaxloss:alpha", "has no '='"),
        ("relaxloss:alpha=1,alpha=2", "set twice"),
        ("none+relaxloss", "changes the training"),
        ("", "unknown defense"),
    ],
)
def test_bad_specs_are_explained(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        defenses.parse(text)


def test_recipe_is_checked_and_read_from_text() -> None:
    recipe = build(Recipe, {"model": "mlp:hidden=8/4,activation=relu", "milestones": "2/3", "lr": "0.5"})
    assert (str(recipe.model), recipe.milestones, recipe.lr) == ("mlp:hidden=8/4,activation=relu", (2, 3), 0.5)
    assert build(Recipe, recipe.settings()) == recipe
    with pytest.raises(UserError, match="did you mean 'vgg11_bn'"):
        Recipe(model="vgg11")
    with pytest.raises(UserError, match="epochs=0"):
        Recipe(epochs=0)


def test_lists_keep_the_fields_with_their_spec() -> None:
    assert split_list("none, relaxloss:alpha=1,upper=0.5,a+b:c=1,d=2") == [
        *("none", "relaxloss:alpha=1,upper=0.5"),
        "a+b:c=1,d=2",
    ]


def test_composition_is_a_spec_too() -> None:
    both = defenses.parse("relaxloss:alpha=0.5+memguard:budget=0.7")
    assert isinstance(both, Composed)
    assert defenses.parse(str(both)) == both
    assert defenses.parse(plain(both)) == both
    assert both.trainer == RelaxLoss(alpha=0.5)
    assert defenses.parse("relaxloss:alpha=1e+0") == RelaxLoss(alpha=1)


def test_a_name_is_registered_once() -> None:
    registry: Registry[Thing] = Registry("thing", "relaxloss.models")
    registry.register("thing")(Thing)
    registry.register("thing")(Thing)  # the same class again, as on a reload

    @dataclass(frozen=True)
    class Other(Spec):
        pass

    with pytest.raises(UserError, match="registered twice"):
        registry.register("thing")(Other)  # type: ignore[arg-type]
