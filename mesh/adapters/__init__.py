"""Where the mesh touches the world: one outside library a module, and every foreign exception becomes ours here."""

__all__: list[str] = []
