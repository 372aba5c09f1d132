"""How to test what uses a gate: an adapter by the contract, on a real gate; a program with a fake one.

Run it with pytest in a folder that has web.py too; in this one: `pytest -c /dev/null --rootdir . test_my_adapter.py`.
"""

import asyncio
import json

import pytest
import web

import mesh
from mesh.testing import FakeGate, adapter_contract

# --- an adapter: a decorator for jobs of some scheduler, which knows success, failure, and a reason for people


class Job:
    """One job of that scheduler."""

    def __init__(self, gate, name, work):
        """Govern ``work`` under that name."""
        self.gate, self.name, self.work = gate, name, work

    def run(self):
        """What the scheduler calls: whether it went well, and why not."""
        try:
            with self.gate.execution("jobs/run", ("Job", self.name), {"name": self.name}):
                self.work()
        except mesh.Denied as denied:
            return False, denied.code
        return True, ""


def through_my_job(gate, body):
    """One call through the adapter: the code that its callers are shown, or nothing if the body ran well."""
    well, reason = Job(gate, "nightly", body).run()
    return None if well else reason


test_my_job_fails_closed = adapter_contract(through_my_job)


# --- a program: its own logic, with a gate that does as it is told


def visit(gate, method, path):
    """Status and body of one request to the application of web.py."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path}
    asyncio.run(web.create(gate)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def test_a_payment_is_asked_for_as_what_it_is():
    """What policy will see."""
    gate = FakeGate()
    assert visit(gate, "POST", "/pay/acct:acme/1200") == (200, b"paid 1200 to acct:acme")
    assert gate.asked[0].action == "payments/send"
    assert gate.asked[0].params == {"to": "acct:acme", "amount_cents": 1200}


@pytest.mark.parametrize(("method", "path"), [("GET", "/pay/acct:acme/1200"), ("POST", "/pay/acct:acme/much"), ("GET", "/admin")])
def test_what_nobody_thought_of_is_denied(method, path):
    """And nobody is even asked."""
    gate = FakeGate()
    assert visit(gate, method, path)[0] == 403
    assert gate.asked == []


def test_a_denial_is_told_and_health_needs_none():
    """The reason has a code; what needs no authorization says so."""
    gate = FakeGate()
    gate.deny("halted", action="payments/send")
    status, body = visit(gate, "POST", "/pay/acct:acme/1200")
    assert (status, json.loads(body)["code"], json.loads(body)["retry_after"]) == (403, "halted", 60)
    assert visit(gate, "GET", "/health") == (200, b"well")
