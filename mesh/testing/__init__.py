"""Tools to test with: the seeded world drives the real machines of a mesh through faults that no test bench could repeat."""
