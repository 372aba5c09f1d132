"""`mesh dev`: a real small mesh on this machine, and a story that checks what it says."""

__all__: list[str] = []
