"""Tools to test with, for users and for ourselves; what is offered here is imported when it is used.

:class:`FakeGate` stands in for a gate in unit tests of programs. :func:`adapter_contract` shows, on a real gate and a real governor, that
an adapter fails closed. The seeded world (:mod:`mesh.testing.world`) drives a mesh through faults that no test bench could repeat.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mesh.testing.bench import connected_to
    from mesh.testing.contract import Body, BodyFailed, ContractBroken, adapter_contract, broken_clauses
    from mesh.testing.fakegate import FakeAsked, FakeGate, FakeGateWarning

__all__ = [
    "Body",
    "BodyFailed",
    "ContractBroken",
    "FakeAsked",
    "FakeGate",
    "FakeGateWarning",
    "adapter_contract",
    "broken_clauses",
    "connected_to",
]

_LAZY: Final = {
    "Body": "mesh.testing.contract",
    "BodyFailed": "mesh.testing.contract",
    "ContractBroken": "mesh.testing.contract",
    "FakeAsked": "mesh.testing.fakegate",
    "FakeGate": "mesh.testing.fakegate",
    "FakeGateWarning": "mesh.testing.fakegate",
    "adapter_contract": "mesh.testing.contract",
    "broken_clauses": "mesh.testing.contract",
    "connected_to": "mesh.testing.bench",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever is asked for
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
