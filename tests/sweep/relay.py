"""A relay between a client and a server on loopback that can be cut off, as a network can."""

import contextlib
import select
import socket
import threading


class Relay:
    """A context with a relay to `port` of this machine; clients connect to `self.port`.

    After `cut`, nothing passes, and no connection is refused: a client waits in vain for an answer. `mend` lets
    everything pass again. With `forget`, it breaks the old connections, as a firewall that has forgotten them.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._is_open = threading.Event()
        self._is_open.set()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open.set()
        self._listener.close()
        self._break()

    def cut(self) -> None:
        self._is_open.clear()

    def mend(self, *, forget: bool) -> None:
        if forget:
            self._break()
        self._is_open.set()

    def _break(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # also wakes the thread that waits for it, which closes it
        self._sockets.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._is_open.wait()
                with contextlib.suppress(OSError):
                    server = socket.create_connection(("127.0.0.1", self._to))
                    self._sockets += [client, server]
                    threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        with contextlib.suppress(OSError, ValueError):  # one of them is closed
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    content = ready.recv(1 << 16)
                    self._is_open.wait()
                    if not content:
                        raise OSError
                    other[ready].sendall(content)
        for each in (client, server):
            each.close()
