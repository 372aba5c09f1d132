"""No bundle is decided by that was not checked here, on this node, whoever signed it.

Order: sizes and nesting, then parsing, strict validation and lint in a child process; the manifest's terms against what the
permits demand; the embedded cases on the engine that will decide. The first thing that fails refuses the law.

Not here: signatures and thresholds (:mod:`mesh.core.law.policy`), which come before.
"""

from collections.abc import Iterable

from mesh.adapters.cedar import CedarEngine
from mesh.adapters.cedar_child import examine_bundles
from mesh.core.bytes import canonical
from mesh.core.law.governance import Law
from mesh.core.law.scope import check_terms
from mesh.errors import Refused
from mesh.policy.cases import require_cases

__all__ = ["admit_laws"]


def admit_laws(laws: Iterable[Law], engine: CedarEngine) -> None:
    """Check these laws' bundles, all in one child, and make ``engine`` ready to decide by them. Enforcers' laws have none.

    Raises:
        Refused: ``policy_invalid``, ``policy_too_deep``, ``policy_tests_failed``.
        Unavailable: ``engine_unavailable`` if the check itself could not be made.
    """
    new = [(law, law.bundle) for law in laws if law.bundle is not None and not engine.holds(law.manifest.digest)]
    if not new:
        return
    for finding in examine_bundles([canonical.encode(bundle) for _, bundle in new]):
        raise Refused(finding.code, f"{finding.where}: {finding.what}"[:300])
    for law, bundle in new:
        check_terms(law.manifest, bundle)
        engine.load(bundle, law.manifest.digest)
        try:
            require_cases(bundle, law.manifest.actions, engine)
        except Refused:
            engine.drop(law.manifest.digest)
            raise
