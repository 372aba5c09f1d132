"""`nodes/`, `schemas/` and `compose/` are what the code renders, to the byte: `make schemas` makes them so."""

import pytest

from mesh.contracts.files import contract_files
from mesh.contracts.shelf import differences
from mesh.deploy.compose import compose_files
from mesh.deploy.shelves import node_files
from tests.house.tree import ROOT, text

RENDERED = {"schemas": contract_files, "nodes": node_files, "compose": compose_files}


@pytest.mark.parametrize("shelf", RENDERED)
def test_a_shelf_equals_the_code(shelf: str) -> None:
    assert list(differences(ROOT / shelf, RENDERED[shelf]())) == []


def test_one_command_renders_them_all() -> None:
    recipe = text("Makefile").partition("schemas: ")[2].split("\n\n")[0]
    assert "python -m mesh.contracts schemas" in recipe
    assert "python -m mesh.deploy nodes compose" in recipe
