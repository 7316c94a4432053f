"""A box on the line between a site and the coordinator, in user space: it may be slow, and it may forget.

    relay = Relay(port, rate=8000)          # bytes a second in each direction, over all connections together
    relay = Relay(port, forgets_s=60)       # a connection without a byte for so long passes nothing any more, and nobody is told

Its buffers are small, so that what is slow is felt at both ends at once, as on a real line. One thread; standard library only.
"""

import contextlib
import selectors
import socket
import threading
import time

BUFFER_BYTES = 16 * 1024
# Shorter than what a rate takes to send a piece, longer than nothing: the thread sleeps between its turns.
TURN_S = 0.01


class Way:
    """One direction of one connection."""

    def __init__(self, source, target):
        self.source, self.target = source, target
        self.waiting = b""
        self.has_ended = False


class Connection:
    def __init__(self, near, far):
        self.up, self.down = Way(near, far), Way(far, near)
        self.moved_s = time.monotonic()
        self.is_forgotten = False

    def close(self):
        for end in (self.up.source, self.up.target):
            with contextlib.suppress(OSError):
                end.close()


class Relay:
    def __init__(self, port, rate=None, forgets_s=None):
        self.target = ("127.0.0.1", port)
        self.rate, self.forgets_s = rate, forgets_s
        self.connections, self.accepted, self.forgotten = [], 0, 0
        self.bytes = {"up": 0, "down": 0}
        self.lock = threading.Lock()
        self.is_stopping = False
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)  # those it accepts inherit it
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def stop(self):
        self.is_stopping = True
        self.thread.join()
        for connection in self.connections:
            connection.close()
        self.listener.close()

    def forget_all(self):
        """As when the box is replaced by another one: what is open hangs, what is new works."""
        with self.lock:
            for connection in self.connections:
                self.forget(connection)

    def forget(self, connection):
        self.forgotten += 0 if connection.is_forgotten else 1
        connection.is_forgotten = True

    # ---- the thread ----

    def accept(self):
        with contextlib.suppress(BlockingIOError):
            near, _ = self.listener.accept()
            far = socket.socket()
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            try:
                far.connect(self.target)
            except OSError:
                near.close()
                far.close()
                return
            near.setblocking(False)
            far.setblocking(False)
            self.accepted += 1
            self.connections.append(Connection(near, far))

    def read(self, connection, way):
        if way.waiting or way.has_ended:
            return
        try:
            data = way.source.recv(1024 if self.rate else BUFFER_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.moved_s = time.monotonic()
        way.waiting, way.has_ended = data, not data
        if not data:
            with contextlib.suppress(OSError):
                way.target.shutdown(socket.SHUT_WR)

    def write(self, way, budget):
        """Gives what it moved."""
        piece = way.waiting[:budget]
        try:
            sent = way.target.send(piece) if piece else 0
        except BlockingIOError:
            return 0
        except OSError:
            way.has_ended, sent = True, len(piece)
        way.waiting = way.waiting[sent:]
        return sent

    def move(self, direction, budget):
        """Every connection in turn, piece by piece, until the budget is used or nothing moves."""
        moved_all = 0
        while moved_all < budget:
            moved = 0
            for connection in self.connections:
                if connection.is_forgotten:
                    continue
                way = getattr(connection, direction)
                self.read(connection, way)
                moved += self.write(way, int(budget - moved_all - moved))
            if moved == 0:
                break
            moved_all += moved
        self.bytes[direction] += moved_all
        return moved_all

    def tidy(self):
        now = time.monotonic()
        for connection in self.connections[:]:
            if self.forgets_s and now - connection.moved_s > self.forgets_s:
                self.forget(connection)
            if connection.up.has_ended and connection.down.has_ended:
                connection.close()
                self.connections.remove(connection)

    def wait(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            for connection in self.connections:
                for way in (connection.up, connection.down):
                    if not connection.is_forgotten and not way.has_ended and not way.waiting:
                        selector.register(way.source, selectors.EVENT_READ)
            selector.select(0.2)

    def run(self):
        credit, then = {"up": 0.0, "down": 0.0}, time.monotonic()
        while not self.is_stopping:
            now = time.monotonic()
            with self.lock:
                self.accept()
                moved = 0
                for direction in credit:
                    # A tenth of a second may be caught up with: the line has no memory of when it was idle.
                    credit[direction] = min(credit[direction] + (now - then) * self.rate, 0.1 * self.rate) if self.rate else 1 << 20
                    done = self.move(direction, credit[direction])
                    credit[direction] -= done
                    moved += done
                self.tidy()
            then = now
            if self.rate and any(way.waiting for c in self.connections for way in (c.up, c.down)):
                time.sleep(TURN_S)
            elif moved == 0:
                self.wait()
