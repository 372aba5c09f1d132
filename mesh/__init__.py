"""govmesh: peer governance nodes that decide whether an execution may begin, and prove afterwards that it was allowed.

The map is one line per part, lowest first; imports only point downwards::

    codes limits errors   every reason to say no, every bound, the exceptions that carry them
    core                  values and arithmetic: bytes, run, law, log
    protocol              decisions: pure machines, (state, event, now) -> Step
    verify                offline verification and replay
    adapters              one outside library each
    policy gate roles     policy folders; what governed programs use; what nodes are made of
    deploy contracts      renders nodes/, compose/ and schemas/
    dev bench cli         `mesh dev`, its measurements, the command line

Importing this starts no event loop, opens no socket and reads no file.
"""
