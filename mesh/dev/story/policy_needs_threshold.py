"""One of two signatures is not enough: the command refuses to hand the policy out, and every node refuses it by itself."""

from mesh.core.bytes import envelope
from mesh.core.law.policy import Manifest
from mesh.dev import lawmaking
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    change = await lawmaking.change(stage)
    bundle, manifest = await change.bundle(stage), await change.manifest(stage)
    lines = len(envelope.read(Manifest, manifest.read_bytes()).signatures)
    context = str(stage.cluster.files.context)
    tool = await stage.command("--context", context, "policy", "push", str(manifest), bundle)
    refused = "threshold_not_met" if "error[threshold_not_met]" in tool.err else f"exit {tool.status}"
    answers = await stage.offer(manifest.read_bytes())
    held = len(await lawmaking.manifests(stage))
    nodes = sum(code == "threshold_not_met" for code in answers.values())
    return Measured(
        tool.status == 5 and refused == "threshold_not_met" and nodes == len(stage.nodes) and held == change.epoch - 1,
        f"signed by {lines} of 2: the command says {refused}, {nodes} of {len(stage.nodes)} nodes refuse it",
    )


GUARANTEE = Guarantee("policy_needs_threshold", "no single person changes policy", _check)
