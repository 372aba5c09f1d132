"""The shelf `compose/`: a mesh in containers on one machine, each node with its own files and nothing of the others'.

Rules
-----
1. One image, made from this checkout with the pinned dependencies; it holds the nats-server that the tests run with.
2. `init` runs once by hand and writes all files below `state/`; after that every service mounts only what is its own.
3. No service runs as root, has a capability, or may write outside of its own folder.

Not here: what the one-off containers do (:mod:`mesh.deploy.container`).
"""

from typing import Any, Final

from mesh.contracts.yaml import to_yaml
from mesh.deploy.container import AUDITOR, DOOR_PORT, NODES, SERVER, SHOWN

__all__ = ["compose_files"]

_STATE: Final = "./state"
_INSIDE: Final = "/mesh"
_README: Final = f"""\
# compose: a mesh in containers

nats-server, {len(NODES)} governors, a witness and an auditor on one machine, for trying out and for tests. Rendered by `make schemas`.

```
mkdir -p state && export MESH_UID=$(id -u) MESH_GID=$(id -g)
docker compose run --rm init     # once: keys, roster, policy, logins, all in state/
docker compose up -d
```

Then, with govmesh installed on the host, from this folder:

```
mesh --context state/context.toml status
mesh --context state/context.toml run --as deployer --action ops/run --resource Host:local -- /bin/echo hello
```

`docker compose logs auditor` shows the auditor's verdict. `curl http://127.0.0.1:{DOOR_PORT}/checkpoint` shows the log of {SHOWN} as any
C2SP client sees it, with the line of the witness, who is no member. Deleting `state/` ends the mesh for good.

| service | mounts | may write |
|---|---|---|
| init, by hand | all of state/ | all of it |
| nats | its configuration, its store | its store |
| streams, ends | the provisioner's login | nothing |
| governors | own folder, roster, policy | own folder |
| witness | own folder, roster | own folder |
| auditor | roster, policy, own login | own folder |

What this is not: a production deployment. One operator and one disk hold every key, `mesh trust` of such a mesh is one owner; NATS
is one server without TLS, on loopback. [docs/operations.md](../docs/operations.md) says what a real one needs.
"""
_DOCKERFILE: Final = """\
FROM python:3.13-slim
WORKDIR /src
COPY requirements/runtime.txt requirements/
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY mesh mesh
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
WORKDIR /
USER 65532:65532
CMD ["mesh", "--help"]
"""
_IGNORED: Final = """\
*
!requirements/runtime.txt
!pyproject.toml
!README.md
!LICENSE
!mesh
**/__pycache__
"""
_COMMENTS: Final = {
    "services.init": "Once, by hand: docker compose run --rm init",
    "services.nats.ports": "Loopback only: there is no TLS here.",
    "services.witness": "Belongs to no mesh: it has no login on the bus, and asks nobody anything.",
    "services.streams": "Makes the streams, or finds them as they should be, and ends. No node has the right to.",
}


def compose_files() -> dict[str, bytes]:
    """Path below ``compose/`` to content."""
    return {
        "README.md": _README.encode(),
        "compose.yaml": to_yaml(_document(), comments=_COMMENTS).encode(),
        "Dockerfile": _DOCKERFILE.encode(),
        "Dockerfile.dockerignore": _IGNORED.encode(),
    }


def _document() -> dict[str, Any]:
    services = {"init": _init(), "nats": _nats(), "streams": _streams()}
    services |= {f"governor-{name}": _governor(name) for name in NODES}
    return {"name": "govmesh", "services": {**services, "witness": _witness(), "auditor": _auditor()}}


def _service(command: list[str], *mounts: tuple[str, str], **more: object) -> dict[str, Any]:
    return {
        "image": "govmesh:local",
        **({} if "build" in more else {"pull_policy": "never"}),
        "command": command,
        "user": "${MESH_UID:-65532}:${MESH_GID:-65532}",
        "init": True,
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108 -- a fresh one for each container
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "volumes": [f"{_STATE}{path}:{_INSIDE}{path}:{mode}" for path, mode in mounts],
        **more,
    }


def _init() -> dict[str, Any]:
    build = {"context": "..", "dockerfile": "compose/Dockerfile"}
    return _service(["python", "-m", "mesh.deploy.container", "init", _INSIDE], ("", "rw"), build=build, profiles=["init"])


def _nats() -> dict[str, Any]:
    command = [
        "nats-server",
        "-c",
        f"{_INSIDE}/bus/nats.conf",
        "-a",
        "0.0.0.0",  # noqa: S104 -- all addresses of its container, of which the host sees one port
        "-p",
        "4222",
        "-m",
        "8222",
        "-js",
        "-sd",
        f"{_INSIDE}/store",
    ]
    probe = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8222/healthz', timeout=1)"
    return _service(
        command,
        ("/bus/nats.conf", "ro"),
        ("/store", "rw"),
        ports=["127.0.0.1:4222:4222"],
        healthcheck={"test": ["CMD", "python", "-c", probe], "interval": "1s", "timeout": "2s", "retries": 30},
        restart="unless-stopped",
    )


def _streams() -> dict[str, Any]:
    command = ["python", "-m", "mesh.deploy.container", "streams", _INSIDE, SERVER]
    return _service(command, ("/bus/provisioner.nk", "ro"), depends_on={"nats": {"condition": "service_healthy"}})


def _governor(name: str) -> dict[str, Any]:
    door = {"ports": [f"127.0.0.1:{DOOR_PORT}:{DOOR_PORT}"]} if name == SHOWN else {}
    return _service(
        ["mesh", "node", "run", "--config", f"{_INSIDE}/nodes/{name}/node.toml"],
        (f"/nodes/{name}", "rw"),
        ("/roster.json", "ro"),
        ("/policy", "ro"),
        depends_on={"streams": {"condition": "service_completed_successfully"}},
        restart="unless-stopped",
        stop_grace_period="20s",
        **door,
    )


def _witness() -> dict[str, Any]:
    return _service(
        ["mesh", "witness", "run", "--config", f"{_INSIDE}/witness/witness.toml"],
        ("/witness", "rw"),
        ("/roster.json", "ro"),
        restart="unless-stopped",
    )


def _auditor() -> dict[str, Any]:
    return _service(
        ["mesh", "--context", f"{_INSIDE}/{AUDITOR}", "audit", "run"],
        (f"/{AUDITOR}", "ro"),
        ("/auditor", "rw"),
        ("/bus/auditor.nk", "ro"),
        ("/roster.json", "ro"),
        ("/policy", "ro"),
        depends_on={f"governor-{name}": {"condition": "service_started"} for name in NODES},
        restart="unless-stopped",
        stop_grace_period="20s",
    )
