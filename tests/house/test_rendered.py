"""`nodes/`, `schemas/` and `compose/` are what the code renders, to the byte: `make schemas` makes them so."""

from mesh.contracts.files import contract_files
from mesh.contracts.shelf import differences
from tests.house.tree import ROOT


def test_schemas_equal_the_code() -> None:
    assert list(differences(ROOT / "schemas", contract_files())) == []
