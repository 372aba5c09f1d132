"""The guarantees of the story, one file each, in the order in which they are told."""

from mesh.dev.guarantee import Guarantee
from mesh.dev.story import (
    auditor_agrees,
    changed_arguments_refused,
    cut_link_fails_closed,
    deny_leaves_no_trace,
    expired_refused,
    final_by_k,
    forged_refused,
    fork_frozen_with_proof,
    heals_without_loss,
    injected_agent_stopped,
    node_joins_live,
    permit_runs_once,
    policy_flips_everywhere,
    policy_needs_threshold,
    proof_verifies_offline,
    replay_refused,
    restored_backup_heals,
    revocation_everywhere,
    rollback_refused,
    running_execution_cancelled,
    stale_denies,
    wrong_decision_refused,
)

__all__ = ["STORY"]

STORY: tuple[Guarantee, ...] = (
    injected_agent_stopped.GUARANTEE,
    permit_runs_once.GUARANTEE,
    deny_leaves_no_trace.GUARANTEE,
    replay_refused.GUARANTEE,
    changed_arguments_refused.GUARANTEE,
    expired_refused.GUARANTEE,
    forged_refused.GUARANTEE,
    final_by_k.GUARANTEE,
    proof_verifies_offline.GUARANTEE,
    policy_needs_threshold.GUARANTEE,
    policy_flips_everywhere.GUARANTEE,
    rollback_refused.GUARANTEE,
    revocation_everywhere.GUARANTEE,
    running_execution_cancelled.GUARANTEE,
    cut_link_fails_closed.GUARANTEE,
    stale_denies.GUARANTEE,
    heals_without_loss.GUARANTEE,
    node_joins_live.GUARANTEE,
    restored_backup_heals.GUARANTEE,
    auditor_agrees.GUARANTEE,
    wrong_decision_refused.GUARANTEE,
    fork_frozen_with_proof.GUARANTEE,
)
