"""What governs: roster, policy, revocation, heartbeat and frontier."""
