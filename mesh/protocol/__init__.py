"""Pure machines: ``(state, events, now) -> Step(new state, effects)``. They say what must happen; shells make it happen."""
