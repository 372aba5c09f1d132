"""How anything becomes bytes and back: canonical JSON, signed envelopes, keys."""
