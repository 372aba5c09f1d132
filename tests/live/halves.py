"""Five governors on two servers, with a link between them that can be cut."""

import socket
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from mesh.adapters.natsserver import NatsServer
from mesh.deploy.devmesh import point_at
from mesh.dev.cluster import Cluster
from mesh.dev.link import Link
from tests.live.kit import make_files

HUB: Final = ("eu-1", "us-1", "ap-1")
LEAF: Final = ("sa-1", "af-1")
LOGIN: Final = 'user: "leaf", password: "leaf"'


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Halves:
    """That mesh, its nodes not started yet."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(make_files(folder, nodes=5))
        self.leaf_port = _free_port()
        self.leaf: NatsServer | None = None
        self.link = Link("between", self.leaf_port)

    def start_hub(self) -> None:
        config = self.cluster.files.bus_config
        config.write_text(
            config.read_text()
            + f'leafnodes {{ listen: "127.0.0.1:{self.leaf_port}", no_advertise: true, authorization {{ {LOGIN}, account: MESH }} }}\n'
        )
        self.cluster.start_bus()

    def start_leaf(self) -> None:
        port = urlsplit(self.link.url).port
        remote = f'leafnodes {{ remotes: [ {{ url: "nats://leaf:leaf@127.0.0.1:{port}", account: MESH }} ], reconnect: "200ms" }}\n'
        hub = self.cluster.files.bus_config.read_text()
        text = hub[: hub.index("leafnodes {")].replace("server_name: dev", "server_name: leaf") + remote
        self.leaf = NatsServer.start(self.cluster.files.folder / "leaf", config=text)
        for name in LEAF:
            point_at(self.cluster.files, [self.leaf.url], node=name)

    def close(self) -> None:
        self.cluster.close()
        if self.leaf is not None:
            self.leaf.stop()
