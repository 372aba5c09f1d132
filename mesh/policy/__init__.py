"""Policy folders: what people write, turned into the one bundle that nodes decide by.

A folder holds ``domain.toml`` (actions and their terms, enforcers), ``schema.cedarschema`` (entity types), ``*.cedar``
(policies, each with ``@id``), ``entities.json`` (groups and resources, in Cedar's own form) and ``tests/*.toml`` (cases).
"""
