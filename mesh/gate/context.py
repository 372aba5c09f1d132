"""A context file says how to reach one mesh, whom to trust in it, and who one is there; commands and programs share it.

Search order: an explicit name or path, ``MESH_CONTEXT``, ``./.mesh/dev/context.toml``. A name stands for
``$XDG_CONFIG_HOME/govmesh/<name>.toml``. Paths inside are relative to the file.
"""

import os
from pathlib import Path

import msgspec

from mesh.adapters.bus_table import BusTable
from mesh.adapters.configfile import Located, load_located
from mesh.adapters.trustfiles import Trust
from mesh.errors import Refused

__all__ = ["Context", "Holder", "find_context", "load_context"]


class Holder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key and the identity document that names it."""

    document: str
    """Envelope of the identity document."""
    key: str
    """Key file."""


class Context(Located, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One context file."""

    mesh: str
    region: str
    """Whose governors are asked."""
    tenant: str
    bus: BusTable
    """How workloads and enforcers log in."""
    trust: Trust
    spent: str
    """The enforcer's file of spent intents and unsent outcomes."""
    enforcer: Holder
    """This host's enforcer."""
    identities: dict[str, Holder]
    """Workload identities by a short name."""
    auditor: BusTable
    """How auditors log in; they read streams and publish nothing."""
    audit: str
    """The auditor's file of how far it has come."""


def find_context(name: str | None) -> Path:
    """The context file for an explicit ``name`` or path, or the default one.

    Raises:
        Refused: ``config_invalid`` if there is none.
    """
    wanted = name or os.environ.get("MESH_CONTEXT", "")
    if not wanted:
        default = Path(".mesh/dev/context.toml")
        if default.is_file():
            return default
        raise Refused("config_invalid", "no context: start `mesh dev`, or set MESH_CONTEXT, or give --context")
    path = Path(wanted)
    if path.is_file():
        return path
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    named = home / "govmesh" / f"{wanted}.toml"
    if named.is_file():
        return named
    raise Refused("config_invalid", f"no context {wanted!r}: neither a file nor {named}")


def load_context(name: str | None = None) -> Context:
    """Read the context file that ``name`` or the environment points to.

    Raises:
        Refused: ``config_invalid``.
    """
    path = find_context(name)
    return load_located(Context, path)
