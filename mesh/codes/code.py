"""What is registered of a reason to say no."""

from typing import Final, Literal, NamedTuple

__all__ = ["RESEND", "SENDER", "Code", "Exit"]

Exit = Literal[1, 2, 3, 4, 5]
"""How a command that ends with this code exits: 1 operational, 2 denied, 3 invalid input, 4 unreachable or stale, 5 forged."""


class Code(NamedTuple):
    """One registered reason."""

    meaning: str
    """What happened, in one clause."""
    raised_by: str
    """Which part says so."""
    fix: str
    """What the reader can do next."""
    exit: Exit


RESEND: Final = "Sign and send a new one."
SENDER: Final = "Ask the sender to encode it as schemas/v1 says; `mesh schema KIND` prints the shape."
