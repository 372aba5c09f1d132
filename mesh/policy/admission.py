"""No bundle is decided by that was not checked here, on this node, whoever signed it.

Order: sizes and nesting, then parsing, strict validation and lint in a child process; the manifest's terms against what the
permits demand; the embedded cases on the engine that will decide. The first thing that fails refuses the law.

Not here: signatures and thresholds (:mod:`mesh.core.law.policy`), which come before.
"""

from collections.abc import Iterable, Sequence

from mesh.adapters.cedar import CedarEngine
from mesh.adapters.cedar_child import examine_bundles
from mesh.core.bytes import canonical
from mesh.core.law.governance import Law
from mesh.core.law.policy import Bundle, Manifest
from mesh.core.law.scope import check_terms
from mesh.errors import Refused
from mesh.policy.cases import require_cases

__all__ = ["admit_laws", "examine", "install"]


def admit_laws(laws: Iterable[Law], engine: CedarEngine) -> None:
    """Check these laws' bundles, all in one child, and make ``engine`` ready to decide by them. Enforcers' laws have none.

    Raises:
        Refused: ``policy_invalid``, ``policy_too_deep``, ``policy_tests_failed``.
        Unavailable: ``engine_unavailable`` if the check itself could not be made.
    """
    new = [(law.manifest, law.bundle) for law in laws if law.bundle is not None]
    examine([canonical.encode(bundle) for manifest, bundle in new if not engine.holds(manifest.digest)])
    for manifest, bundle in new:
        install(manifest, bundle, engine)


def examine(bundles: Sequence[bytes]) -> None:
    """What needs no engine here, in one child process for all: it waits for the child.

    Args:
        bundles: canonical bytes.

    Raises:
        Refused: as :func:`admit_laws`.
        Unavailable: as :func:`admit_laws`.
    """
    for finding in examine_bundles(bundles) if bundles else ():
        raise Refused(finding.code, f"{finding.where}: {finding.what}"[:300])


def install(manifest: Manifest, bundle: Bundle, engine: CedarEngine) -> None:
    """The rest, for a bundle that was examined: the manifest's terms and the cases; then ``engine`` is ready to decide by it.

    Raises:
        Refused: as :func:`admit_laws`.
    """
    check_terms(manifest, bundle)
    known = engine.holds(manifest.digest)  # the same content under another epoch has other terms
    engine.load(bundle, manifest.digest)
    try:
        require_cases(bundle, manifest.actions, engine)
    except Refused:
        if not known:
            engine.drop(manifest.digest)
        raise
