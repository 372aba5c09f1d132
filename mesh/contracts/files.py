"""All of `schemas/`, as paths and bytes.

Not here: what each of them says.
"""

from typing import Final

from mesh.adapters.cedar_shape import compose_schema
from mesh.codes import CODES
from mesh.contracts.asyncapi import asyncapi
from mesh.contracts.jsonschema import json_text, schema_files
from mesh.contracts.readme import schemas_readme
from mesh.contracts.vectors import vector_files
from mesh.core.law.policy import ActionSpec, Attribute, Bundle, EntityType, ParamSpec

__all__ = ["VERSION", "contract_files"]

VERSION: Final = "v1"
_TYPES: Final = ("bool", "int", "string", "bools", "ints", "strings")
_CEDAR: Final = """\
// What policy sees, as it is generated for a domain: here for one action with a parameter of every type, and one entity type.
// `asserted` is what the workload signed, `attested` what the governor says; both are recorded. Lists are sets to Cedar.
// An attribute of an identity document is optional always, a parameter if its action says so.
"""


def contract_files() -> dict[str, bytes]:
    """Path below ``schemas/`` to content."""
    files = {"README.md": schemas_readme(), "asyncapi.yaml": asyncapi(), "codes.json": json_text(_codes())}
    files |= {"cedar/generated.cedarschema": _cedar(), **schema_files()}
    files |= {f"vectors/{name}": data for name, data in vector_files().items()}
    return {f"{VERSION}/{name}": data for name, data in sorted(files.items())}


def _codes() -> dict[str, dict[str, object]]:
    return {
        name: {"meaning": code.meaning, "raised_by": code.raised_by, "fix": code.fix, "exit": code.exit} for name, code in CODES.items()
    }


def _cedar() -> bytes:
    required = [ParamSpec(name=f"some_{kind}", type=kind, privacy="public", required=True, auditors=[]) for kind in _TYPES]
    optional = ParamSpec(name="perhaps", type="string", privacy="public", required=False, auditors=[])
    bundle = Bundle(
        domain="example",
        profile="",
        schema="entity Thing;",
        policies=[],
        principal=[Attribute(name="clearance", type="int")],
        types=[EntityType(name="Thing", closed=True, prefix="")],
        entities=[],
        auditors=[],
        actions=[ActionSpec(name="use", resource="Thing", params=[optional, *required])],
        cases=[],
    )
    return (_CEDAR + compose_schema(bundle)).encode()
