"""C2SP tlog-policy (c2sp.org/tlog-policy): what counts as final for one log, as a file that any C2SP verifier reads.

Not here: reading one. What counts as final for us stands in the roster.
"""

from collections.abc import Mapping
from typing import Final

from mesh.core.log.note import SignatureType, Verifier

__all__ = ["tlog_policy"]

_GROUP: Final = "Quorum"
"""No name of a member has a capital letter."""


def tlog_policy(log: Verifier, cosigners: Mapping[str, str], k: int) -> str:
    """A policy that asks for ``k`` of these cosigners over checkpoints of that log.

    Args:
        log: the key of the log, under its origin.
        cosigners: note key name, ``mesh/NODE/attest``, to public key, hex; the policy itself calls it NODE.
        k: how many.
    """
    names = {name: name.split("/")[1] for name in cosigners}
    lines = [f"log {log.vkey}"]
    lines += [f"witness {names[name]} {Verifier(name, SignatureType.COSIGNATURE, key).vkey}" for name, key in cosigners.items()]
    lines += [f"group {_GROUP} {k} {' '.join(names.values())}", f"quorum {_GROUP}"]
    return "\n".join(lines) + "\n"
