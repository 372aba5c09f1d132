"""What commands and processes say of their surroundings.

Not here: what a code is (:mod:`mesh.codes.code`).
"""

from typing import Final

from mesh.codes.code import Code

__all__ = ["OPERATING"]

OPERATING: Final[dict[str, Code]] = {
    "config_invalid": Code("the configuration is not usable", "config", "Mend what is named; if several things are wrong, all are.", 3),
    "key_exposed": Code("a key file can be read by others", "signer", "chmod 600 it.", 3),
    "key_exists": Code("a key file stands there already, and keys are never overwritten", "signer", "Choose another path.", 3),
    "not_installed": Code("a library that this command needs is not installed", "cli", "Install govmesh[all].", 1),
    "usage": Code("the command was not given what it needs", "cli", "See --help.", 3),
    "exec_failed": Code("the program could not be started", "exec", "Check path and rights.", 1),
    "server_unusable": Code("no usable nats-server", "nats-server child", "Install govmesh[embedded], or set MESH_NATS_SERVER.", 1),
}
