"""From a context file to an open gate.

Not here: the files' formats (:mod:`mesh.gate.context`, :mod:`mesh.adapters.trustfiles`).
"""

import asyncio
import secrets
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from mesh.adapters.bus import Bus
from mesh.adapters.bus_options import BusOptions
from mesh.adapters.bus_table import bus_options
from mesh.adapters.clock import Clock
from mesh.adapters.signer import KeyFile, Signer, load
from mesh.adapters.spent import SpentStore
from mesh.adapters.trustfiles import load_trust, read_bounded
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Governance
from mesh.core.run.identity import Identity, Role, check_identity, issued_by
from mesh.errors import Refused
from mesh.gate.context import Context, Holder, load_context
from mesh.gate.core import Core, Settings
from mesh.gate.front import Gate
from mesh.gate.hall import Hall
from mesh.limits import ENVELOPE_BYTES_MAX
from mesh.protocol.enforcer import Place

__all__ = ["connect", "connect_async", "open_core", "pick"]

_FRESH_MS: Final = 3_000
"""How long connecting waits for k members to answer and for what they hold; without that the gate is open and denies, as with ``stale``."""
_FAREWELL_MS: Final = 2_000


def connect(context: str | None = None, identity: str | None = None, *, obligations: Iterable[str] = ()) -> Gate:
    """Open the gate of this program.

    Args:
        context: a context's name or file; by default ``MESH_CONTEXT``, then ``.mesh/dev/context.toml``.
        identity: whose intents these are, by its short name in the context; may be left out where there is only one.
        obligations: those that this program fulfils (:attr:`Execution.obligations` tells which); any other denies.

    Raises:
        Refused: ``config_invalid`` and whatever else is wrong with the files.
        Unavailable: ``unreachable`` without a bus, ``storage_failed``.
        Alarm: ``storage_corrupt``.
    """
    found = load_context(context)
    settings = _settings(found, identity, frozenset(obligations))
    # Permissions on the bus are by login; the name only has to be ours, so that no two clients share inboxes.
    options = bus_options(found.bus, name=f"gate-{secrets.token_hex(8)}", base=found.path("."))
    hall = Hall("mesh-gate")
    try:
        core = hall.wait(_open(settings, options, found.path(found.spent)))
    except BaseException:
        hall.close(_nothing())
        raise
    hall.at_exit(partial(core.close, wait_ms=_FAREWELL_MS))
    return Gate(hall, core)


async def connect_async(context: str | None = None, identity: str | None = None, *, obligations: Iterable[str] = ()) -> Gate:
    """The same, without blocking the event loop."""
    return await asyncio.to_thread(connect, context, identity, obligations=obligations)


async def _open(settings: Settings, options: BusOptions, spent: Path) -> Core:
    spent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    bus = await Bus.connect(options)
    try:
        store = await SpentStore.open(spent, audience=settings.place.document.claims.key)
    except BaseException:
        await bus.close()
        raise
    core = Core(settings, bus, store, Clock())
    try:
        await core.open_(wait_ms=_FRESH_MS)
    except BaseException:
        await core.close(wait_ms=0)
        raise
    return core


async def open_core(context: Context, identity: str | None) -> Core:
    """The core of a gate on the running event loop, for whoever needs its single steps.

    Raises:
        MeshError: as :func:`connect`.
    """
    options = bus_options(context.bus, name=f"gate-{secrets.token_hex(8)}", base=context.path("."))
    return await _open(_settings(context, identity, frozenset()), options, context.path(context.spent))


async def _nothing() -> None:
    """There is nothing to close yet."""


def _settings(context: Context, identity: str | None, obligations: frozenset[str]) -> Settings:
    governance = load_trust(context.trust, context.path("."))
    if governance.roster.mesh != context.mesh:
        raise Refused("config_invalid", f"the context is of {context.mesh}, its roster of {governance.roster.mesh}")
    holder = pick(context, identity)
    own, own_key = _load(context, context.enforcer, "enforcer", governance)
    document, key = _load(context, holder, "workload", governance)
    place = Place(document=own, boot=secrets.token_hex(32), obligations=obligations)
    return Settings(
        governance=governance,
        region=context.region,
        tenant=context.tenant,
        place=place,
        signer=Signer([own_key, key]),
        identity=document,
    )


def pick(context: Context, identity: str | None) -> Holder:
    """The identity of that short name, or the only one there is.

    Raises:
        Refused: ``config_invalid``.
    """
    names = sorted(context.identities)
    if identity is None and len(names) == 1:
        identity = names[0]
    if identity is None or identity not in context.identities:
        asked = "which identity?" if identity is None else f"no identity {identity[:40]!r}"
        raise Refused("config_invalid", f"{asked} The context has: {', '.join(names)}")
    return context.identities[identity]


def _load(context: Context, holder: Holder, role: Role, governance: Governance) -> tuple[Statement[Identity], KeyFile]:
    document = envelope.read(Identity, read_bounded(context.path(holder.document), ENVELOPE_BYTES_MAX))
    key = load(context.path(holder.key))
    if key.use != role:
        raise Refused("config_invalid", f"{holder.key} is a key for {key.use}, not for {role}")
    issued_by(document, governance.roster)
    check_identity(document.claims, role=role, subject=None, key=key.key.public, now_ms=Clock().now_ms())
    return document, key
