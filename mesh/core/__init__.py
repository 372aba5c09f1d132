"""Values and arithmetic, all pure: no clock, no randomness, no disk, no network, no event loop."""
