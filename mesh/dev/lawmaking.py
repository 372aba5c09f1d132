"""The policy that the story changes and changes back: what one of its requests is answered, in the domain that nothing else uses.

A story may be told again on a mesh that was kept: each telling turns the answer round, by the next epoch.
"""

import shutil
from pathlib import Path
from typing import Final, NamedTuple

from mesh.adapters import signer
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.policy import Manifest, policy_stream
from mesh.dev.stage import Stage, wish
from mesh.errors import Refused
from mesh.gate.core import Wish

__all__ = ["DOMAIN", "Change", "change", "manifests", "people", "request", "signed"]

DOMAIN: Final = "customers"
_POLICY: Final = Path(__file__).parent / "policies" / DOMAIN
_FORBID: Final = """@id("customers/no-email")
@description("The story: from this epoch on nobody reads e-mail addresses")
forbid (principal, action == Action::"customers/read", resource)
when { context.asserted.params.fields.contains("email") };
"""


class Change(NamedTuple):
    """The next policy, and what it changes."""

    folder: Path
    epoch: int
    before: str
    """How the request is answered now."""
    after: str

    async def manifest(self, stage: Stage) -> Path:
        """The file of its manifest with the first signature, made by the command if nobody did yet."""
        path = self.folder.with_suffix(".manifest.json")
        if not path.exists():
            one = str(people(stage)[0])
            await stage.told("policy", "sign", str(self.folder), "--key", one, "--out", str(path), "--reason", "the story")
        return path

    async def bundle(self, stage: Stage) -> str:
        """The file of its bundle, built by the command if nobody did yet."""
        path = self.folder.with_suffix(".bundle.json")
        if not path.exists():
            await stage.told("policy", "build", str(self.folder), "--out", str(path))
        return str(path)


def request() -> Wish:
    """What the CRM asks for."""
    return wish("customers/read", ("Customer", "cust:8124"), {"fields": ["email"]})


def people(stage: Stage) -> list[Path]:
    """The key files of the domain's signers."""
    return [stage.cluster.files.folder / "people" / f"policy-{DOMAIN}-{number}.key" for number in (1, 2, 3)]


def signed(stage: Stage, value: Payload, count: int) -> bytes:
    """The envelope of a statement by so many of them, past all commands."""
    draft = envelope.draft(value)
    keys = [signer.load(path).key for path in people(stage)[:count]]
    return envelope.assemble(draft.payload_type, draft.payload, {key.public: key.sign(draft.message) for key in keys})


async def manifests(stage: Stage) -> list[Statement[Manifest]]:
    """Every epoch of the domain, oldest first.

    Raises:
        Refused: ``not_found`` if there is none.
    """
    held = [envelope.read(Manifest, item.envelope) for item in await stage.law(policy_stream(DOMAIN))]
    if not held:
        raise Refused("not_found", f"no epoch of {DOMAIN}")
    return held


async def change(stage: Stage) -> Change:
    """Write the folder of the next policy: with the forbid if the newest epoch is without it, else without."""
    held = await manifests(stage)
    adds = held[-1].claims.digest == held[0].claims.digest
    folder = stage.folder / f"{DOMAIN}-{held[-1].claims.epoch + 1}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(_POLICY, folder)
    if adds:
        (folder / "email.cedar").write_text(_FORBID, encoding="utf-8")
    before, after = ("permit", "policy_denied") if adds else ("policy_denied", "permit")
    return Change(folder, held[-1].claims.epoch + 1, before, after)
