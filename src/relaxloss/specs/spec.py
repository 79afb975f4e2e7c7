"""Specs: frozen dataclasses that say what to do, and their three equal forms: object, dict, string.

>>> from relaxloss.defenses import parse
>>> parse("relaxloss:alpha=0.5")
RelaxLoss(alpha=0.5, flatten='all', upper=1.0)

A spec holds hyper-parameters only, never state. Its fields are checked and brought to their declared types on
construction, so that ``alpha=1`` and ``alpha=1.0`` are the same spec with the same content key.
"""

from __future__ import annotations

import contextlib
import dataclasses
import dis
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import math
import pkgutil
import re
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import pydantic

from relaxloss.errors import UserError, one_line, unknown

S = TypeVar("S", bound="Spec")
PLUGINS = "relaxloss.plugins"
Written = str | Mapping[str, Any]  # a spec as its string or its dict
CONSTANT = re.compile(r"\b(ClassVar|Final)\b")  # annotations of what is no field
DIGESTS: dict[Any, str] = {}  # of all third parties' code so far, see `digest`


if TYPE_CHECKING:
    Given = TypeVar("Given", contravariant=True)
    Kept = TypeVar("Kept", covariant=True)

    class Read(Generic[Given, Kept]):
        """A field as a type checker should see it: given as one type, it is read and kept as another."""

        def __get__(self, instance: object | None, owner: type) -> Kept: ...
        def __set__(self, instance: object, value: Given) -> None: ...

else:

    class Read:
        """At run time, a field's type is what it is kept as."""

        def __class_getitem__(cls, types: tuple[Any, Any]) -> Any:
            return types[1]


def digest(code: Any) -> str:
    """A digest of the source of a third party's class or function.

    Of the whole file that it is in, as it was when first seen: code in memory is older than a file that was edited and
    not loaded again. In a script or a notebook also of its own lines, as they are now, and of those of what it names
    there. What is imported is not looked at. Empty for the package's own code, whose versions are raised by hand.
    """
    if code.__module__.partition(".")[0] == "relaxloss":
        return ""
    if code.__module__ == "__main__":
        source = _script() + "\n".join(_pieces(code, "__main__", {})).encode()
    elif code not in DIGESTS:
        source = _file(code.__module__) or "\n".join(_pieces(code, code.__module__, {})).encode()
    else:
        return DIGESTS[code]
    DIGESTS[code] = hashlib.sha256(source).hexdigest()[:12]
    return DIGESTS[code]


@functools.cache
def _script() -> bytes:
    """The file of the script that runs, as it was when first asked for."""
    return _file("__main__")


def _file(module: str) -> bytes:
    """The file of a loaded module; nothing if there is none, or it is in an archive, or gone."""
    file = getattr(sys.modules.get(module), "__file__", None)
    with contextlib.suppress(OSError):
        return Path(file).read_bytes() if file is not None else b""
    return b""


def _pieces(value: Any, module: str, seen: dict[int, Any]) -> Iterator[str]:
    """The lines of a class or function, and of all that it names in its own module; plain values by their repr."""
    if isinstance(value, (bool, int, float, str, bytes, type(None))):
        yield repr(value)
        return
    if id(value) in seen:
        return
    seen[id(value)] = value  # and kept, so that no id is used twice
    parts: Iterable[Any] = ()
    if isinstance(value, (set, frozenset)):  # in an order that is the same in every process
        yield from sorted(piece for part in value for piece in _pieces(part, module, seen))
    elif isinstance(value, (list, tuple)):
        parts = value
    elif isinstance(value, dict):
        parts = (part for item in value.items() for part in item)
    elif isinstance(value, (staticmethod, classmethod)):
        parts = (value.__func__,)
    elif isinstance(value, property):
        parts = (value.fget, value.fset)
    elif isinstance(value, functools.cached_property):
        parts = (value.func,)
    elif isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
    elif isinstance(value, type):
        if value.__module__ == module:
            own = {name: part for name, part in vars(value).items() if inspect.isfunction(part) or name[:2] != "__"}
            parts = (*value.__mro__[1:], own)
    elif inspect.isfunction(value):
        if value.__module__ == module:
            yield _lines(value)
            names = sorted(_names(value.__code__) & value.__globals__.keys())
            cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
            wrapped = vars(value).get("__wrapped__")
            parts = ({name: value.__globals__[name] for name in names}, cells, value.__defaults__, wrapped)
    elif type(value).__module__ == module:  # an object of a class that is defined there
        slots = (name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ()))
        own = vars(value) if hasattr(value, "__dict__") else {}
        parts = (type(value), own, {name: getattr(value, name) for name in slots if hasattr(value, name)})
    for part in parts:
        yield from _pieces(part, module, seen)


def _names(code: types.CodeType) -> set[str]:
    """The global names that a piece of code, and what is defined within it, looks up."""
    own = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*(_names(value) for value in code.co_consts if isinstance(value, types.CodeType)))


def _lines(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed in where nothing keeps the lines
        return _compiled(function.__code__)


def _compiled(code: types.CodeType) -> str:
    plain_constants = [value for value in code.co_consts if isinstance(value, (int, float, str, bytes))]
    inner = [_compiled(value) for value in code.co_consts if isinstance(value, types.CodeType)]
    return repr((code.co_code, code.co_names, plain_constants, inner))


@functools.cache
def _adapters(cls: type[Spec]) -> dict[str, pydantic.TypeAdapter[Any]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    adapters = {}
    for field in dataclasses.fields(cls):
        try:
            adapters[field.name] = pydantic.TypeAdapter(hints[field.name], config=config)
        except pydantic.PydanticUserError:  # the type brings its own config
            adapters[field.name] = pydantic.TypeAdapter(hints[field.name])
    return adapters


@dataclasses.dataclass(frozen=True)
class Spec:
    """Base of everything that can be named on the command line and hashed: defenses, attacks, games, recipes."""

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1  # of the code behind the spec; raise it when the same settings give other results

    def __post_init__(self) -> None:
        for field, adapter in _adapters(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, field)
            try:
                checked = adapter.validate_python(value)
            except pydantic.ValidationError as error:
                said = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
                raise UserError(f"{self.name or type(self).__name__}: {field}={value} is not valid: {said}") from None
            if self.name and isinstance(checked, (list, set, dict)):
                raise UserError(
                    f"{self.name}: {field} is a {type(checked).__name__}; expected a number, a "
                    "text or a tuple of them, which does not change: declare it as tuple[float, ...]"
                )
            if isinstance(checked, float) and not math.isfinite(checked):
                raise UserError(f"{self.name or type(self).__name__}: {field}={value}; expected a finite number")
            if checked is not value:
                object.__setattr__(self, field, checked)

    @classmethod
    def registered(cls, name: str) -> None:
        """Raise `UserError` if a class that is about to be registered cannot be what it is registered as."""

    def settings(self) -> dict[str, Any]:
        """All fields as plain values, defaults too."""
        fields: dict[str, Any] = plain(self)
        fields.pop("name", None)
        return fields

    def __str__(self) -> str:
        """The string form, with the fields that differ from their defaults: ``relaxloss:alpha=0.5``."""
        parts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            if value != default:
                parts.append(f"{field.name}={written(value)}")
        return self.name + (":" + ",".join(parts) if parts else "")


def written(value: Any) -> str:
    """A field's value as a spec's string has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "/".join(written(item) for item in value)
    return "none" if value is None else str(value)


def plain(value: Any, *, versions: bool = False) -> Any:
    """A value in JSON's types: specs become dicts with their name (and version, if wanted), tuples lists."""
    if isinstance(value, Spec):
        head: dict[str, Any] = {"name": value.name} if value.name else {}
        if versions:
            head["version"] = value.version
            if source := digest(type(value)):
                head["digest"] = source
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return head | {name: plain(item, versions=versions) for name, item in fields.items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item, versions=versions) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, versions=versions) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a spec holds plain values only, not {type(value).__name__}")


def content_key(stage: str, version: int, **content: Any) -> str:
    """The name of a result: 24 hex digits of SHA-256 over the stage, its version and **all** the content's fields."""
    named = {"stage": stage, "version": version, **plain(content, versions=True)}
    text = json.dumps(named, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def split(text: str) -> tuple[str, dict[str, str]]:
    """``name:field=value,field=value`` → the name and the fields' values as text."""
    name, _, rest = text.strip().partition(":")
    fields: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        field, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"got {text!r}: expected name:field=value,field=value, but {part!r} has no '='")
        if field.strip() in fields:
            raise UserError(f"got {text!r}: {field.strip()!r} is set twice; keep one")
        fields[field.strip()] = value.strip()
    return name.strip(), fields


def split_list(text: str) -> list[str]:
    """A comma-separated list of specs; a piece with ``=`` and no ``:`` before it belongs to the spec before it.

    >>> split_list("none,relaxloss:alpha=1,upper=0.5,hamp")
    ['none', 'relaxloss:alpha=1,upper=0.5', 'hamp']
    """
    specs: list[str] = []
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        if specs and re.match(r"^\w+\s*=", piece):
            specs[-1] += "," + piece
        else:
            specs.append(piece)
    return specs


def build(cls: type[S], fields: Mapping[str, Any]) -> S:
    """An instance from a dict of fields; text is brought to the fields' types."""
    check_names(cls, fields)
    hints = typing.get_type_hints(cls)
    values = {field: _read(value, hints[field]) for field, value in fields.items()}
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{cls.name or cls.__name__} needs {', '.join(missing)}; give {missing[0]}=value")
    return cls(**values)


def check_names(cls: type[Spec], names: Iterable[str]) -> None:
    """A clear error for a name that is no field of the spec."""
    known = {field.name for field in dataclasses.fields(cls)}
    for name in names:
        if name not in known:
            raise unknown(f"field of {cls.name or cls.__name__}", name, known)


def _read(value: Any, hint: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lower() == "none" and type(None) in typing.get_args(hint):
        return None
    options = [hint, *typing.get_args(hint)]
    if any(typing.get_origin(option) is tuple for option in options):
        return tuple(filter(None, value.split("/")))
    return value


class Registry(Generic[S]):
    """The known specs of one kind: the package's own (found by listing it), and third parties' (entry points).

    Registering needs the decorator only::

        @defenses.register("my_defense")
        @dataclass(frozen=True)
        class MyDefense(Defense): ...
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self._package = kind, package
        self._classes: dict[str, type[S]] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[type[S]], type[S]]:
        """The class decorator that gives a spec its name."""

        def add(cls: type[S]) -> type[S]:
            other = self._classes.get(name)
            if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise UserError(f"{self.kind} {name!r} is registered twice: by {other.__module__} and {cls.__module__}")
            known = {key for base in cls.__mro__[1:] for key in inspect.get_annotations(base)}
            hints = inspect.get_annotations(cls)
            fields = [key for key, hint in hints.items() if key not in known and not CONSTANT.search(str(hint))]
            if fields and "__dataclass_fields__" not in vars(cls):
                raise UserError(
                    f"{self.kind} {name!r}: {cls.__name__} has the fields {', '.join(fields)} and is no dataclass, "
                    "so that nobody could set them: write @dataclass(frozen=True) between @register and the class"
                )
            cls.registered(name)
            cls.name = name
            self._classes[name] = cls
            digest(cls)
            return cls

        return add

    def _load(self) -> None:
        if self._complete:
            return
        self._complete = True  # now: a plugin may ask for a name while it is loaded
        try:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            load_plugins()
        except BaseException:
            self._complete = False
            raise

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load()
        return sorted(self._classes)

    def __getitem__(self, name: str) -> type[S]:
        self._load()
        if name not in self._classes:
            raise UserError(
                f"{unknown(self.kind, name, self._classes)}; of a file of your own: relaxloss --plugin FILE"
            )
        return self._classes[name]

    def __iter__(self) -> Iterator[type[S]]:
        return (self[name] for name in self.names())

    def parse(self, given: str | Mapping[str, Any] | S) -> S:
        """A spec from its string, its dict (with a ``name``), or itself."""
        if isinstance(given, Spec):
            return given
        if isinstance(given, str):
            name, fields = split(given)
            return build(self[name], fields)
        if not isinstance(given, Mapping) or "name" not in given:
            raise UserError(f"got {given!r}: expected a {self.kind} as 'name:field=value' or a table with a 'name'")
        rest = {field: value for field, value in given.items() if field != "name"}
        return build(self[str(given["name"])], rest)


def load_file(path: Path) -> None:
    """Import a file of defenses, attacks, ... of one's own as a module of its name; local workers find it, too."""
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"plugin {path}: expected a .py file that is there")
    name, file = path.stem, path.resolve()
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # the last, so that it hides nothing; workers inherit it
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise UserError(f"plugin {path} cannot be imported: {one_line(error)}") from error
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != file:
        raise UserError(f"plugin {path}: there is another module {name}, {found or 'of Python'}; rename the file")


def plugin_modules() -> set[str]:
    """The modules that `load_plugins` imports."""
    return {entry.module for entry in importlib.metadata.entry_points(group=PLUGINS)}


@functools.cache
def load_plugins() -> tuple[str, ...]:
    """Import every module that third parties offer under the entry-point group ``relaxloss.plugins``.

    One that cannot be imported is left out with a warning: it must not keep anybody from everything else.
    """
    loaded = []
    for entry in importlib.metadata.entry_points(group=PLUGINS):
        try:
            entry.load()
        except Exception as error:
            warnings.warn(f"the plugin {entry.name} ({entry.value}) is left out: {one_line(error)}", stacklevel=2)
        else:
            loaded.append(entry.name)
    return tuple(loaded)
