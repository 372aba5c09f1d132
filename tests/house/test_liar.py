"""What lies on purpose can be started by the story alone: no role, no command and no configuration leads there."""

from tests.house.tree import modules, text


def test_only_the_storys_own_mesh_names_the_liar() -> None:
    named = {path for path in modules("mesh") if "testing.liar" in text(path) or "MESH_LIE" in text(path)}
    assert named == {"mesh/dev/apart.py", "mesh/dev/story/wrong_decision_refused.py", "mesh/testing/liar.py"}
