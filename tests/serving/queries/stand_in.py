"""A stand-in of Redis in this process: keys and values behind a socket, slow or silent at will."""

import contextlib
import socketserver
import threading


class Server(socketserver.ThreadingTCPServer):
    """Knows SET and MGET; to any other command it says OK.

    Attributes:
      values: what is there, by key.
      commands: the names of those that came.
      seconds: how long each answer takes, unless `woken` is set.
      broken: says an error to whatever is asked.
    """

    allow_reuse_address = daemon_threads = True

    def __init__(self, port=0):
        self.values, self.commands, self.seconds, self.broken = {}, [], 0.0, False
        self.woken = threading.Event()
        super().__init__(("127.0.0.1", port), Client)

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.server_address[1]}/0"


class Client(socketserver.StreamRequestHandler):
    def handle(self):
        with contextlib.suppress(OSError, ValueError):
            while (line := self.rfile.readline()).startswith(b"*"):
                name, *arguments = [self.argument() for _ in range(int(line[1:]))]
                self.server.commands.append(name.decode())
                self.server.woken.wait(self.server.seconds)
                self.wfile.write(self.answer(name, arguments))

    def argument(self):
        length = int(self.rfile.readline()[1:])
        return self.rfile.read(length + 2)[:length]

    def answer(self, name, arguments):
        if self.server.broken:
            return b"-LOADING not yet\r\n"
        if name == b"SET":
            key, value = arguments
            self.server.values[key] = value
        if name != b"MGET":
            return b"+OK\r\n"
        found = [self.server.values.get(key) for key in arguments]
        parts = [b"$-1\r\n" if one is None else b"$%d\r\n%s\r\n" % (len(one), one) for one in found]
        return b"*%d\r\n%s" % (len(parts), b"".join(parts))


@contextlib.contextmanager
def stand_in(port=0):
    """Serves a stand-in in a thread."""
    with Server(port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.woken.set()
            server.shutdown()
            thread.join()
