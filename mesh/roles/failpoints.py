"""Named places where a test may kill this process, exactly as a power cut would: ``MESH_FAILPOINT=persist.after:3``.

It can only end the process, never let it go on otherwise, so it is no danger in production.
"""

import os
import signal
from collections.abc import Callable

from mesh.errors import Refused
from mesh.protocol.step import FAILPOINTS

__all__ = ["failpoint_from"]


def failpoint_from(setting: str) -> Callable[[str], None]:
    """What to call at each boundary: kills the process when ``name:count`` of ``setting`` is reached.

    Raises:
        Refused: ``config_invalid`` for an unknown name or count.
    """
    if not setting:
        return lambda _name: None
    name, _, count = setting.partition(":")
    if name not in FAILPOINTS or not (count or "1").isdecimal():
        raise Refused("config_invalid", f"MESH_FAILPOINT {setting!r}: one of {', '.join(FAILPOINTS)}, with :COUNT")
    left = int(count or "1")

    def failpoint(passed: str) -> None:
        nonlocal left
        if passed == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return failpoint
