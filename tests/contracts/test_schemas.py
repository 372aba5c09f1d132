"""The schemas describe what the code takes, and refuse what they can say of what it refuses."""

import base64
import inspect
import json
from typing import Any, get_args

import msgspec
import pytest

from mesh.contracts.asyncapi import CHANNELS, RESERVED, asyncapi
from mesh.contracts.files import contract_files
from mesh.contracts.jsonschema import KIND_MODULES, MESSAGES, RAW, known_kinds, record_tags
from mesh.contracts.readme import PROCEDURES
from mesh.contracts.shelf import differences, write
from mesh.contracts.vectors import cases
from mesh.core import messages, subjects
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import KINDS
from tests.contracts.jsonschematext import violations
from tests.contracts.kit import PROCEDURE, SCHEMAS, VECTORS, vector, vectors
from tests.contracts.yamltext import parse

STATEMENTS = vectors("statement")


@pytest.mark.parametrize("path", STATEMENTS)
def test_an_example_fits_its_schema(path: str) -> None:
    example = vector(path)
    assert violations(SCHEMAS / f"statement/{example['kind']}.schema.json", json.loads(example["payload"])) == []
    assert violations(SCHEMAS / "envelope.schema.json", json.loads(example["envelope"])) == []


@pytest.mark.parametrize("path", vectors("message"))
def test_a_message_fits_its_schema(path: str) -> None:
    name = path.removeprefix("message/").removesuffix(".json").partition("-")[0]
    assert violations(SCHEMAS / f"message/{name}.schema.json", vector(path)) == []


def test_records_bundles_and_proofs_fit_their_schemas() -> None:
    for line in (VECTORS / "log/records.ndjson").read_text().splitlines():
        record = json.loads(line)
        assert violations(SCHEMAS / "record.schema.json", record) == []
        assert violations(SCHEMAS / f"record/{record['record']}.schema.json", record) == []
    assert violations(SCHEMAS / "policy-bundle.schema.json", vector("policy/payments.bundle.json")) == []
    assert violations(SCHEMAS / "proof-bundle.schema.json", vector("log/decision.proof.json")) == []


@pytest.mark.parametrize("name", ["float", "null", "unknown_field", "missing_field", "huge_integer", "newline_in_name"])
def test_a_schema_refuses_what_it_can_say(name: str) -> None:
    wire = json.loads(base64.b64decode(vector(f"refused/{name}_refused.json")["input"]["envelope"]))
    assert violations(SCHEMAS / "statement/intent.schema.json", json.loads(base64.b64decode(wire["payload"])))


def test_the_envelope_schema_is_the_envelope_that_is_read() -> None:
    wire = json.loads((SCHEMAS / "envelope.schema.json").read_bytes())
    assert sorted(wire["properties"]) == sorted(field.name for field in msgspec.structs.fields(envelope._Wire))
    signature = wire["properties"]["signatures"]["items"]
    assert sorted(signature["properties"]) == sorted(field.name for field in msgspec.structs.fields(envelope._Signature))
    assert wire["additionalProperties"] is signature["additionalProperties"] is False


def test_every_kind_that_the_code_knows_is_here() -> None:
    ours = {name for name, kind in KINDS.items() if kind.payload.__module__.startswith("mesh.")}
    assert ours == set(known_kinds())
    assert {KINDS[name].payload.__module__ for name in ours} == set(KIND_MODULES)


def test_every_message_is_described_with_all_that_is_inside() -> None:
    described: set[Any] = {one for kind in MESSAGES.values() for one in (get_args(kind) or (kind,))}
    inner = {messages.HeardWord, messages.Location, messages.MirrorStatus, messages.Openings, messages.PolicyStatus}
    public = {value for _, value in inspect.getmembers(messages, inspect.isclass) if value.__module__ == messages.__name__}
    assert {one for one in public if issubclass(one, Payload) and one.__name__ in messages.__all__} == described | inner
    raw = {(kind.__name__, field.name) for kind in described for field in msgspec.structs.fields(kind) if "Raw" in str(field.type)}
    assert raw <= RAW.keys()


def test_every_property_of_a_schema_has_the_words_of_the_code() -> None:
    schema = json.loads((SCHEMAS / "statement/intent.schema.json").read_bytes())
    assert schema["$defs"]["Intent"]["properties"]["domain"]["description"] == "The enforcement domain."
    assert schema["$defs"]["Audience"]["properties"]["boot"]["description"].startswith("Drawn afresh at each start")


def test_every_subject_is_described_or_reserved() -> None:
    spelled = set(subjects.__all__) - {"ANY", "is_urgent", "short"}
    assert sorted([*(channel.name for channel in CHANNELS), *RESERVED]) == sorted(spelled)  # none of them twice
    assert all(channel.spell is getattr(subjects, channel.name) for channel in CHANNELS)


def test_the_subjects_document_points_at_schemas_that_are_there() -> None:
    document = parse(asyncapi().decode())
    assert document["channels"]["intent"]["address"] == "mesh.v1.{region}.intent.{tenant}.{workload}"
    for message in document["components"]["messages"].values():
        reference = message["payload"].get("$ref")
        assert reference is None or (SCHEMAS / reference).is_file()
    for reference in _references(document):
        if reference.startswith("#"):
            found: Any = document
            for part in reference.removeprefix("#/").split("/"):
                found = found[part]


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [reference for item in value for reference in _references(item)]
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [reference for item in value.values() for reference in _references(item)]
    return []


def test_every_procedure_is_explained_and_run() -> None:
    assert {case.procedure for case in cases()} == set(PROCEDURES) == set(PROCEDURE)


def test_rendering_takes_away_what_nobody_rendered(tmp_path: Any) -> None:
    files = {"a/b.txt": b"1", "c.txt": b"2"}
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "stray.txt").write_bytes(b"?")
    (tmp_path / "c.txt").write_bytes(b"other")
    assert sorted(differences(tmp_path, files)) == ["a/b.txt: missing", "c.txt: differs", "old/stray.txt: nobody rendered it"]
    write(tmp_path, files)
    assert list(differences(tmp_path, files)) == []
    assert not (tmp_path / "old").exists()


def test_rendering_twice_gives_the_same_bytes() -> None:
    assert contract_files() == contract_files()


def test_record_types_and_schemas_are_the_same_set() -> None:
    assert set(record_tags()) == {path.name.partition(".")[0] for path in (SCHEMAS / "record").iterdir()}
