"""What proves: records, Merkle trees, notes, checkpoints, certificates, proof bundles."""
