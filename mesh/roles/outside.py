"""What a governor does for people and witnesses outside of its mesh: a door that serves its log, and asking others to cosign it.

Nothing in the mesh waits for it, and nothing it is told is counted. Off, unless the configuration's ``[outside]`` says otherwise.

Not here: the answers (:mod:`mesh.roles.tiles`), the witnesses (:mod:`mesh.roles.cosigners`).
"""

import asyncio
import logging
import re
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from mesh.adapters.httpclient import admit_url
from mesh.adapters.httpserver import HttpServer
from mesh.adapters.store import Store
from mesh.core.law.roster import Roster
from mesh.core.log.note import SignatureType, Verifier
from mesh.core.log.tlogpolicy import Outsider
from mesh.errors import Alarm, Refused, unforeseen
from mesh.limits import WITNESSES_MAX
from mesh.roles.config import OutsideTable
from mesh.roles.cosigners import Cosigners
from mesh.roles.tiles import Tiles

__all__ = ["outside", "outsiders"]

_NAME: Final = re.compile(r"[a-z0-9-]{1,32}")

_log = logging.getLogger(__name__)


def outsiders(table: OutsideTable, roster: Roster) -> dict[str, Outsider]:
    """The external witnesses of a configuration.

    Raises:
        Refused: ``config_invalid``, naming the first that cannot be asked, or is none: a member's key is not external.
    """
    if len(table.witnesses) > WITNESSES_MAX:
        raise Refused("config_invalid", f"{len(table.witnesses)} external witnesses, at most {WITNESSES_MAX}")
    taken = {*roster.witness_keys().values(), *roster.attest_keys().values()}
    found = dict[str, Outsider]()
    for name, one in table.witnesses.items():
        try:
            verifier = Verifier.from_vkey(one.vkey)
        except Refused as refusal:
            raise Refused("config_invalid", f"outside.witnesses.{name}.vkey: {refusal}") from None
        if not _NAME.fullmatch(name) or verifier.kind is not SignatureType.COSIGNATURE or verifier.key in taken:
            raise Refused("config_invalid", f"outside.witnesses.{name}: a name in lowercase, and a cosigner's key that nobody else has")
        admit_url(one.url)
        taken.add(verifier.key)
        found[name] = Outsider(verifier, one.url)
    return found


@asynccontextmanager
async def outside(
    table: OutsideTable,
    roster: Roster,
    *,
    origin: Callable[[], str],
    store: Callable[[], Store],
    alarm: Callable[[Exception], None],
    counters: Counter[str],
) -> AsyncGenerator[None]:
    """Do it for as long as this is entered.

    Args:
        table: of the configuration.
        roster: whose keys are nobody's outside.
        origin: of the log; may raise while the node is not open.
        store: the node's file; may raise likewise.
        alarm: told of what must not happen.
        counters: counts requests and lines.

    Raises:
        Refused: ``config_invalid``.
    """
    witnesses: Mapping[str, Outsider] = outsiders(table, roster)
    if not table.listen and not witnesses:
        yield
        return
    cosigners = Cosigners(origin, store, witnesses, counters)
    door = HttpServer(Tiles(store, lambda: cosigners.checkpoint).answer, body_bytes_max=0, fatal=alarm, counters=counters)
    if table.listen:
        await door.listen(table.listen)
        print(f"listening {door.port}", file=sys.stderr, flush=True)  # noqa: T201 -- port 0 takes a free one
    task = asyncio.get_running_loop().create_task(_rounds(cosigners, alarm))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await door.close()


async def _rounds(cosigners: Cosigners, alarm: Callable[[Exception], None]) -> None:
    try:
        await cosigners.run()
    except Alarm as error:
        alarm(error)
    except Exception as error:  # noqa: BLE001 -- nothing was changed by it: the mesh goes on, the outside stands still
        _log.critical("no more rounds: %s", unforeseen(error), exc_info=error)
