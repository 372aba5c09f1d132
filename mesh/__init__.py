"""govmesh: peer governance nodes that decide whether an execution may begin, and prove afterwards that it was allowed.

The map is one line per part, lowest first; imports only point downwards::

    codes limits errors   every reason to say no, every bound, the exceptions that carry them
    core                  values and arithmetic: bytes, run, law, log
    protocol              decisions: pure machines, (state, event, now) -> Step
    verify                offline verification and replay
    adapters              one outside library each
    policy gate roles     policy folders; what governed programs use; what nodes are made of
    deploy contracts      renders nodes/, compose/ and schemas/
    dev bench cli         `mesh dev`, its measurements, the command line

Importing this starts no event loop, opens no socket and reads no file. What is offered here is imported when it is used.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from mesh.errors import Alarm, MeshError, Refused, Unavailable

if TYPE_CHECKING:
    from mesh.gate.connect import connect, connect_async  # noqa: TC004 -- resolved when asked for, below
    from mesh.gate.errors import Aborted, ApprovalRequired, Denied  # noqa: TC004 -- as above
    from mesh.gate.front import Execution, Gate  # noqa: TC004 -- as above
    from mesh.verify import Report, verify  # noqa: TC004 -- as above

__all__ = [
    "Aborted",
    "Alarm",
    "ApprovalRequired",
    "Denied",
    "Execution",
    "Gate",
    "MeshError",
    "Refused",
    "Report",
    "Unavailable",
    "connect",
    "connect_async",
    "verify",
]

_LAZY: Final = {
    "Aborted": "mesh.gate.errors",
    "ApprovalRequired": "mesh.gate.errors",
    "Denied": "mesh.gate.errors",
    "Execution": "mesh.gate.front",
    "Gate": "mesh.gate.front",
    "Report": "mesh.verify",
    "connect": "mesh.gate.connect",
    "connect_async": "mesh.gate.connect",
    "verify": "mesh.verify",
}


class _FrontDoor(ModuleType):
    """Python binds a submodule to its name here when it is imported; ``verify`` shall stay the function of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "verify" and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever is asked for
        if name not in _LAZY:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_LAZY[name]), name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _FrontDoor
