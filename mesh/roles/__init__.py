"""Processes: they wire machines to adapters and perform effects in order. Nothing is decided here."""

__all__: list[str] = []
