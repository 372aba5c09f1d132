"""A seeded world: N governors, enforcers and workloads on a simulated network, with simulated disks and clocks."""
