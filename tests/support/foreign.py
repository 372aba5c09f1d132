"""What others make of C2SP: a log kept and signed by tlog-scales, a witness by witness-log. Nothing of ours is in either."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import witness_log
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import PlainEd25519Signer
from tlog_scales.tlog import Checkpoint
from tlog_scales.writer import TilesWriter

__all__ = ["ForeignLog", "foreign_witness", "serve", "vkey_of"]


def vkey_of(signer: Any) -> str:
    """The key of a signer of tlog-scales, as C2SP writes it."""
    return str(signer.vkey.serialize())


class ForeignLog:
    """A log of somebody else, as files."""

    def __init__(self, folder: Path, origin: str = "log.example/behind-the-sofa", *, seed: int = 7) -> None:
        self.origin = origin
        self.folder = folder
        self.signer = PlainEd25519Signer(origin, bytes([seed]) * 32)
        self._writer = TilesWriter.create(folder, origin)

    @property
    def vkey(self) -> str:
        return vkey_of(self.signer)

    def grow(self, count: int) -> None:
        for _ in range(count):
            self._writer.add_leaf(f"{self.folder.name} {self._writer.size + len(self._writer.pending)}".encode())
        self._writer.commit([self.signer], gc=False)

    def checkpoint(self) -> Any:
        return TilesReader(LocalBackend(self.folder)).get_checkpoint()

    def ask(self, old: int, *, proof: list[bytes] | None = None, checkpoint: Any = None) -> bytes:
        """The body of add-checkpoint for the newest checkpoint."""
        reader = TilesReader(LocalBackend(self.folder))
        newest = reader.get_checkpoint()
        if proof is None:
            proof = list(reader.get_consistency_proof(old, newest.size).node_hashes) if 0 < old < newest.size else []
        lines = "".join(f"{base64.b64encode(value).decode()}\n" for value in proof)
        note: str = (checkpoint or newest).serialize()
        return f"old {old}\n{lines}\n{note}".encode()

    def signed(self, size: int, root: bytes, *, by: PlainEd25519Signer | None = None) -> Any:
        """A checkpoint of any content."""
        return Checkpoint.make_signed(self.origin, size, root, [by or self.signer])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, kind, data = self.server.answer(self.path, body)  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the library's name
        pass


@contextmanager
def serve(answer: Any) -> Iterator[str]:
    """A web server of the standard library: ``answer(path, body)`` gives status, content type and body."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.answer = answer  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def foreign_witness(folder: Path, logs: dict[str, str], *, name: str = "witness.example/rust", seed: int = 9) -> Iterator[tuple[str, str]]:
    """A witness of another maker over HTTP that watches these logs (origin to vkey): its address and its vkey."""
    state = str(folder / f"witness-{seed}.json")
    witness_log.WitnessService.create_state(state)
    service = witness_log.WitnessService.new(name, bytes([seed]) * 32, state)
    for origin, vkey in logs.items():
        assert service.add_log(origin, vkey)

    def answer(path: str, body: bytes) -> tuple[int, str, bytes]:
        assert path == "/add-checkpoint"
        status, kind, text = service.handle_add_checkpoint_http(body.decode())
        return status, kind, text.encode()

    with serve(answer) as url:
        yield url, service.vkey()
