"""A call becomes parameters that can be signed, and the signed parameters become the call: nothing else reaches the body.

Rules
-----
1. Parameters are booleans, integers, strings, or lists of those, by exact type: a subclass could answer differently next time.
2. An argument that is ``None`` is left out, and allowed only where ``None`` is also the default.
3. Defaults are bound and signed too, so that changing one changes what is asked.
4. What cannot be named one by one (``*args``, ``**kwargs``) is refused when the function is decorated, not when it is called.

Not here: asking, and running.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import CodeType
from typing import Any, Final, cast

import blake3
import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Params, Payload
from mesh.core.run.intent import Measurement
from mesh.core.run.params import Value
from mesh.errors import Refused
from mesh.limits import INTENT_BYTES_MAX

__all__ = ["Call", "measure_code", "measure_output", "values"]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SCALARS: Final = (bool, int, str)


class _Given(Payload):
    params: Params


class Call:
    """How one function is called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Read the signature.

        Raises:
            TypeError: for rule 4, or a parameter whose name cannot stand in an intent.
        """
        self.signature = inspect.signature(function)
        for name, parameter in self.signature.parameters.items():
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD} or _NAME.fullmatch(name) is None:
                raise TypeError(f"{function.__qualname__}: the parameter {name!r} cannot be signed")

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Params:
        """The arguments of a call as parameters.

        Raises:
            TypeError: as Python does, for arguments that do not fit.
            Refused: ``params_mismatch``.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = dict[str, Any]()
        for name, value in bound.arguments.items():
            if value is not None:
                given[name] = value
            elif self.signature.parameters[name].default is not None:
                raise Refused("params_mismatch", f"{name} is None, which cannot be signed")
        return values(given)

    def unbind(self, params: Mapping[str, Value]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments for the body, from signed parameters."""
        bound = inspect.BoundArguments(self.signature, {name: params[name] for name in self.signature.parameters if name in params})
        bound.apply_defaults()
        return bound.args, bound.kwargs


def values(given: Mapping[str, Any]) -> Params:
    """A copy of ``given`` as the parameters of an intent (rule 1); later changes of a list in it change nothing here.

    Raises:
        Refused: ``params_mismatch``.
    """
    for name, value in given.items():
        items = cast("list[object]", value) if type(value) is list else [value]
        if any(type(item) not in _SCALARS for item in items):
            raise Refused("params_mismatch", f"{name}: only booleans, integers, strings and lists of those can be signed")
    try:
        return canonical.decode(_Given, canonical.encode({"params": dict(given)}), bytes_max=INTENT_BYTES_MAX).params
    except (Refused, OverflowError, TypeError) as error:
        raise Refused("params_mismatch", error.detail if isinstance(error, Refused) else str(error)[:160]) from None


def measure_code(function: Callable[..., Any]) -> Measurement:
    """The digest of what would run: the function's own code, constants and names, not the text it came from.

    The same source gives the same digest under one minor version of Python. Globals and closures are not part of it.
    """
    hasher = blake3.blake3()
    _feed(hasher.update, function.__code__)
    return Measurement(name="function", digest=f"blake3:{hasher.hexdigest()}")


def measure_output(name: str, value: object) -> Measurement:
    """The digest of bytes, or of the canonical JSON of anything that has one.

    Raises:
        Refused: ``malformed`` for a value without canonical form, or a name that is none.
    """
    try:
        data = bytes(value) if isinstance(value, bytes | bytearray) else canonical.encode(value)
        return msgspec.convert({"name": name, "digest": f"blake3:{blake3.blake3(data).hexdigest()}"}, Measurement)
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise Refused("malformed", f"output {name[:40]!r}: {str(error)[:120]}") from None


def _feed(update: Callable[[bytes], object], value: object) -> None:
    # Every item with its type and length, so that no two different codes feed the same bytes.
    if isinstance(value, CodeType):
        parts = (
            value.co_code, value.co_consts, value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars, value.co_argcount,
            value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags, value.co_exceptiontable,
        )  # fmt: skip
        _feed_all(update, b"code", parts)
    elif isinstance(value, tuple):
        _feed_all(update, b"tuple", cast("tuple[object, ...]", value))
    elif isinstance(value, frozenset):
        items = cast("frozenset[object]", value)
        _feed_all(update, b"set", sorted(items, key=lambda item: (type(item).__name__, repr(item))))  # its own order differs per process
    else:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        update(b"%b %d(" % (type(value).__name__.encode(), len(data)))
        update(data)


def _feed_all(update: Callable[[bytes], object], kind: bytes, items: Sequence[object]) -> None:
    update(b"%b %d(" % (kind, len(items)))
    for item in items:
        _feed(update, item)
