"""From a folder to the one bundle it makes: the same folder gives the same bytes, on every machine.

Not here: who signs the manifest that names it.
"""

from pathlib import Path

import msgspec

from mesh.adapters.cedar import PROFILE
from mesh.adapters.cedar_child import examine_bundles, parse_policies
from mesh.adapters.cedar_lint import Finding
from mesh.core.bytes import canonical
from mesh.core.law.policy import Bundle, Terms, bundle_digest
from mesh.core.law.scope import approval_floors, floors
from mesh.core.run.intent import strongest
from mesh.errors import Refused
from mesh.limits import BUNDLE_BYTES_MAX
from mesh.policy.folder import Folder, PolicyRefused, load_folder

__all__ = ["Built", "build", "check"]


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle, and what the manifest must say about it."""

    data: bytes
    """Canonical bytes."""
    digest: str
    bundle: Bundle
    actions: dict[str, Terms]
    """Floors include every ``@assurance`` of a permit that can match; approvals are what all of these demand."""
    enforcers: list[str]


def build(folder: Folder) -> Built:
    """The bundle that ``folder`` makes; its policies are parsed in a child process, and not yet checked.

    Raises:
        PolicyRefused: with everything that keeps it from being one.
        Unavailable: ``engine_unavailable`` if no child could work.
    """
    parsed = parse_policies(folder.sources)
    if parsed.findings:
        raise PolicyRefused(parsed.findings)
    bundle = Bundle(
        domain=folder.domain,
        profile=PROFILE,
        schema=folder.schema,
        policies=sorted(parsed.policies, key=lambda policy: (policy.id, policy.json)),
        principal=folder.principal,
        types=folder.types,
        entities=folder.entities,
        auditors=folder.auditors,
        actions=folder.actions,
        cases=folder.cases,
    )
    data = canonical.encode(bundle)
    try:
        bundle = canonical.decode(Bundle, data, bytes_max=BUNDLE_BYTES_MAX)
        demanded, approvals = floors(bundle), approval_floors(bundle)
    except Refused as refusal:
        raise PolicyRefused([Finding(refusal.code, "bundle", refusal.detail)]) from None
    actions = {
        name: msgspec.structs.replace(terms, assurance=strongest(terms.assurance, demanded[name]), approvals=approvals[name])
        for name, terms in folder.terms.items()
    }
    return Built(data=data, digest=bundle_digest(data), bundle=bundle, actions=actions, enforcers=folder.enforcers)


def check(path: Path) -> Built:
    """The bundle of the folder at ``path``, having passed every check that a node makes, its cases apart.

    Raises:
        PolicyRefused: with every finding of the first stage that has any: files, policy text, bundle.
        Unavailable: ``engine_unavailable``.
    """
    built = build(load_folder(path))
    findings = examine_bundles([built.data])
    if findings:
        raise PolicyRefused(findings)
    return built
