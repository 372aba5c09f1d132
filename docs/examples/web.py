"""A web application behind the gate: what is not mapped to an action is denied, and what is mapped runs only if it is authorized.

With an ASGI server of your choice, and a mesh (`mesh dev`) whose context names an identity `billing`:

    uvicorn --factory web:create
"""

import mesh
from mesh.gate.asgi import EXECUTION, UNGOVERNED, GateMiddleware, Wanted


def asks(scope):
    """What a connection would do; nothing for whatever nobody thought of."""
    path = scope["path"]
    if scope["type"] == "http" and path == "/health":
        return UNGOVERNED
    if scope["type"] == "http" and scope["method"] == "POST" and path.startswith("/pay/"):
        _, _, account, amount = path.split("/")
        return Wanted("payments/send", ("Account", account), {"to": account, "amount_cents": int(amount)})
    return None


async def application(scope, _receive, send):
    """The effect uses what was signed, not what the client sent."""
    text = "well"
    if EXECUTION in scope:
        run = scope[EXECUTION]
        text = f"paid {run.params['amount_cents']} to {run.params['to']}"
        run.output(text.encode(), "answer")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text.encode()})


def create(gate=None):
    """The application with the gate before it."""
    return GateMiddleware(application, gate=gate or mesh.connect(identity="billing"), asks=asks)
