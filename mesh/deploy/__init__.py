"""Renders deployments: the dev mesh, the shelves `nodes/` and `compose/`. One renderer, so that what is tried is what is shipped."""

__all__: list[str] = []
