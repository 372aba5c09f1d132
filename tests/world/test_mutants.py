from typing import Final

import pytest

from mesh.testing.world.world import run_seed
from tests.world.mutants.planted import MUTANTS

SEEDS: Final = 30


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    mutant.plant(monkeypatch)
    for seed in range(mutant.since, mutant.since + SEEDS):
        result = run_seed(seed, nodes=mutant.nodes, trouble=mutant.trouble)
        if result.promise:
            assert result.promise in mutant.promises, f"seed {seed}: {result.promise} {result.message}"
            return
    pytest.fail(f"none of {SEEDS} worlds found it")
