"""Declared fields: a class lists its arguments once and gets `__init__`, conversion and config.

    class Scale(Layer):
        factor: float = 2.0

takes `Scale(3.0, name="s")`, has the signature `(factor=2.0, **kwargs)`, and `get_config()` gives
the factor back. A class with an `__init__` of its own gets its config from the arguments that it
was called with.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, dataclass_transform, get_origin

from alphorn.errors import UnexpectedArgumentError
from alphorn.naming import deserialize, serialize

MISSING = inspect.Parameter.empty


def attribute(*, init: Literal[False] = False) -> Any:
    """Tells type checkers of an attribute that is no argument."""


def keyword(*, alias: str, default: Any = None, kw_only: Literal[True] = True) -> Any:
    """Tells type checkers of an argument that `setup` takes by name."""


@dataclass(frozen=True)
class Converter:
    """Marks a type, `Annotated[Any, Converter(get)]`: `get` turns what came into what is meant."""

    convert: Callable[[Any], Any]


@dataclass(frozen=True)
class Field:
    """One declared argument."""

    name: str
    default: Any
    convert: Callable[[Any], Any] | None


def _converter(annotation: Any) -> Callable[[Any], Any] | None:
    marks = getattr(annotation, "__metadata__", ())
    return next((m.convert for m in marks if isinstance(m, Converter)), None)


def _own_fields(cls: type) -> dict[str, Field]:
    found: dict[str, Field] = {}
    if cls.__name__.startswith("_"):  # a private base says what its subclasses have
        return found
    scope = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    for name, annotation in inspect.get_annotations(cls).items():
        if isinstance(annotation, str):
            if annotation.startswith(("ClassVar", "typing.ClassVar")):
                continue
            annotation = scope.get(annotation, annotation)
        if name.startswith("_") or annotation is ClassVar or get_origin(annotation) is ClassVar:
            continue
        default = cls.__dict__.get(name, MISSING)
        found[name] = Field(name, default, _converter(annotation))
    return found


@functools.cache
def fields(cls: type) -> dict[str, Field]:
    """Returns the declared fields of a class by name, in the order of its arguments.

    A base's fields come first; a field that is declared again takes its new default, and keeps
    its place.
    """
    found: dict[str, Field] = {}
    for base in reversed(cls.__mro__):
        if "__init__" in base.__dict__ and not getattr(base.__init__, "generated", False):
            found.clear()
        else:
            found.update(_own_fields(base))
    return found


def accepts(cls: type, argument: str) -> bool:
    """Returns whether a class can be made with an argument of this name."""
    parameters = inspect.signature(cls.__init__).parameters
    return argument in parameters or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )


def _copied(value: Any) -> Any:
    if type(value) in (list, tuple):
        return type(value)(_copied(v) for v in value)
    return {k: _copied(v) for k, v in value.items()} if type(value) is dict else value


def _generate_init(cls: type) -> None:
    declared = fields(cls)
    keywords = [
        inspect.Parameter(f.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=f.default)
        for f in declared.values()
    ]
    own = inspect.Signature(keywords)
    required = [f.name for f in declared.values() if f.default is MISSING]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if len(args) > len(declared):
            raise UnexpectedArgumentError(
                cls.__name__,
                received=f"{len(args)} positional arguments",
                expected=f"{cls.__name__}{own}",
            )
        values = dict(zip(declared, args, strict=False))
        if twice := [n for n in values if n in kwargs]:
            raise UnexpectedArgumentError(f"{cls.__name__}: {twice[0]} came twice")
        self.convert_arguments(kwargs)
        values |= {n: kwargs.pop(n) for n in list(kwargs) if n in declared}
        if missing := [n for n in required if n not in values]:
            raise UnexpectedArgumentError(
                f"{cls.__name__}: {', '.join(missing)} is missing",
                expected=f"{cls.__name__}{own}",
            )
        self.setup(**kwargs)
        for name, field in declared.items():
            value = values.get(name, field.default)
            setattr(self, name, field.convert(value) if field.convert else _copied(value))
        self.after_init()

    vars(__init__)["generated"] = True
    rest = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
    takes_more = cls.setup is not Configurable.setup and "name" not in declared
    visible = [*keywords, rest] if takes_more else keywords
    vars(__init__)["__signature__"] = inspect.Signature(
        [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), *visible]
    )
    __init__.__qualname__ = f"{cls.__qualname__}.__init__"
    cls.__init__ = __init__


class _Remembering:
    """Keeps the arguments that it was made with; a base, so that signatures are `__init__`'s."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keeps the arguments, for `get_config`."""
        self = super().__new__(cls)
        object.__setattr__(self, "_captured", (_copied(args), _copied(kwargs)))
        return self


@dataclass_transform(field_specifiers=(attribute, keyword))
class Configurable(_Remembering):
    """Base of everything that files describe: fields or captured arguments, and config."""

    annotations_are_fields: ClassVar[bool] = True
    if TYPE_CHECKING:
        _captured: tuple[tuple, dict] = attribute()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Makes `__init__` of a class that declares fields and writes none."""
        super().__init_subclass__(**kwargs)
        if cls.annotations_are_fields and "__init__" not in cls.__dict__ and _own_fields(cls):
            _generate_init(cls)

    def __init__(self) -> None:
        """Takes no arguments; classes that declare fields get their own."""

    def convert_arguments(self, kwargs: dict[str, Any]) -> None:
        """Renames or drops old keyword arguments in place; a hook."""

    def setup(self, **kwargs: Any) -> None:
        """Takes the arguments that are no fields; a hook, which by default allows none."""
        if kwargs:
            declared = fields(type(self))
            raise UnexpectedArgumentError(
                type(self).__name__,
                received=", ".join(kwargs),
                expected=f"only {', '.join(declared) or 'no arguments'}",
            )

    def after_init(self) -> None:
        """Runs when the fields are set: the place to check them and to make children; a hook."""

    def base_config(self) -> dict[str, Any]:
        """Returns the part of the config that is no field, e.g. a name; a hook."""
        return {}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make this object again, as plain data."""
        cls = type(self)
        if getattr(cls.__init__, "generated", False):
            arguments = {n: getattr(self, n) for n in fields(cls)}
        else:
            arguments = self._captured_arguments()
        base = self.base_config()
        return base | {k: serialize(v) for k, v in arguments.items() if k not in base}

    def _captured_arguments(self) -> dict[str, Any]:
        signature = inspect.signature(type(self).__init__)
        bound = signature.bind(self, *self._captured[0], **self._captured[1])
        bound.apply_defaults()
        found = dict(list(bound.arguments.items())[1:])
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                found.update(found.pop(name, {}))
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL and found.get(name) == ():
                found.pop(name)
        return found

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Makes an object from `get_config()`; it shares nothing with the first."""
        return cls(**{k: deserialize(v) for k, v in config.items()})
