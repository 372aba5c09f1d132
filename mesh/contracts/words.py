"""The words beside types, for readers outside of Python: docstrings of classes and of their fields, as plain text.

A field's docstring is the string right below it. Python throws it away, so it is read from the source.

Not here: the types themselves (:mod:`mesh.contracts.jsonschema`).
"""

import ast
import inspect
import re
import textwrap
from functools import cache

import msgspec

__all__ = ["about", "field_words", "plain"]

_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")


def plain(text: str) -> str:
    """Docstring text without Python's own mark-up: roles and doubled backquotes."""
    return _ROLE.sub(r"`\1`", inspect.cleandoc(text)).replace("``", "`")


def about(kind: type) -> str:
    """The docstring of a class."""
    return plain(kind.__doc__ or "")


@cache
def field_words(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Field name to docstring, of a struct and of what it inherits; fields without one are not here."""
    words: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.partition(".")[0] == "mesh":
            words |= _own(base)
    return words


def _own(kind: type) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    words: dict[str, str] = {}
    if isinstance(definition, ast.ClassDef):
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    words[name] = plain(text)
                case _:
                    pass
    return words
