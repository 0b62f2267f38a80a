"""How the ranks of a run learn that one of them has failed or died, so that none waits for it for ever.

Every rank holds a connection to rank 0. The operating system closes a process's connections however it ends, so a
death is noticed at once, even while the main thread waits in a collective operation; a machine that is gone is noticed
by the connection's keep-alive packets within `SILENCE` seconds.
"""

import json
import multiprocessing
import os
import secrets
import socket
import threading
import weakref
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any, NamedTuple, Protocol, cast

from .launch import AFTER_DEATH, Launch
from .signals import say

SILENCE = 24  # seconds
PROBE = 4  # seconds between keep-alive packets
PATIENCE = 300  # seconds to wait for the others at the start
VERDICT = 10  # seconds in which rank 0 answers a failure
DONE = b'done'

_watches: 'weakref.WeakSet[Watch]' = weakref.WeakSet()  # of this process


class Store(Protocol):
    """The part that is used here of the ranks' key-value store."""

    def set(self, key: str, value: str) -> Any: ...

    def get(self, key: str) -> bytes: ...


class Verdict(NamedTuple):
    """Which rank ends the run: its number, its machine, and its reason; without one it died."""

    rank: int
    host: str
    pid: int
    reason: str = ''

    def line(self) -> str:
        """Return one line for the user."""
        who = f'rank {self.rank} (process {self.pid} on {self.host})'
        return f'{who}: {self.reason}' if self.reason else f'{who} has died: {AFTER_DEATH}'


class Watch:
    """Watches over the ranks in a thread, and ends this process with one line when another has failed or died.

    Args:
        launch: the place of this process.
        store: where rank 0 says how to reach it.
    """

    def __init__(self, launch: Launch, store: Store):
        self.launch, self.host = launch, socket.gethostname()
        self.judged = threading.Lock()  # the first failure counts
        self.members: dict[int, Verdict] = {}  # what is known of each, should it die
        self.left = False
        about = json.dumps([launch.rank, self.host, os.getpid()])
        if launch.is_lead:
            self.links = self._accept(store, about)
            self.thread = threading.Thread(target=self._watch_members, daemon=True)
        else:
            self.links = {0: self._connect(store, about)}
            self.thread = threading.Thread(target=self._watch_lead, daemon=True)
        _watches.add(self)
        self.thread.start()

    # ---------------------------------------------------------------------------------------------- connections

    def _accept(self, store: Store, about: str) -> dict[int, Connection]:
        """Let the others connect, `{rank: connection}`."""
        key = secrets.token_hex(32)
        links: dict[int, Connection] = {}
        with Listener(('', 0), authkey=key.encode(), backlog=self.launch.count) as listener:
            port = cast(tuple[str, int], listener.address)[1]
            store.set('watch', json.dumps([own_address(), port, key, about]))
            late = threading.Timer(PATIENCE, self._miss, [links])
            late.start()
            while len(links) < self.launch.count - 1:
                try:
                    link = listener.accept()
                except (AuthenticationError, OSError, EOFError):  # somebody else who knocks at that port
                    continue
                rank, host, pid = json.loads(link.recv_bytes())
                links[rank], self.members[rank] = link, Verdict(rank, host, pid)
                keep_alive(link)
            late.cancel()
        return links

    def _miss(self, links: dict[int, Connection]) -> None:
        """End this process: not all of the others have come."""
        missing = ', '.join(str(rank) for rank in range(1, self.launch.count) if rank not in links)
        say(f'error: rank {missing} did not come within {PATIENCE} seconds: see what its machine says')
        os._exit(1)

    def _connect(self, store: Store, about: str) -> Connection:
        """Connect to rank 0."""
        address, port, key, lead = json.loads(store.get('watch'))
        self.members[0] = Verdict(*json.loads(lead))
        link = Client((address, port), authkey=key.encode())
        link.send_bytes(about.encode())
        keep_alive(link)
        return link

    # ---------------------------------------------------------------------------------------------- the thread

    def _watch_members(self) -> None:
        """Be rank 0: wait for failures and deaths, and hand the first one on."""
        ranks = {link: rank for rank, link in self.links.items()}
        while ranks:
            for link in wait(list(ranks)):
                rank = ranks[cast(Connection, link)]
                try:
                    message = cast(Connection, link).recv_bytes()
                except (EOFError, OSError):
                    self._end_all(self.members[rank])
                    return
                if message != DONE:
                    self._end_all(self.members[rank]._replace(reason=message.decode()))
                    return
                del ranks[cast(Connection, link)]
        self._send_all(DONE)

    def _watch_lead(self) -> None:
        """Be another rank: wait for what rank 0 says, or for its death."""
        try:
            message = self.links[0].recv_bytes()
        except (EOFError, OSError):
            self._end(self.members[0])
            return
        if message != DONE:
            self._end(Verdict(*json.loads(message)))

    def _send_all(self, message: bytes) -> None:
        for link in self.links.values():
            try:
                link.send_bytes(message)
            except OSError:  # that one is gone as well
                continue

    def _end_all(self, verdict: Verdict) -> None:
        """End all ranks, this one as well."""
        if self.judged.acquire(blocking=False):
            self._send_all(json.dumps(verdict).encode())
            self._end(verdict)

    def _end(self, verdict: Verdict) -> None:
        """End this process; one rank of each machine says why, unless somebody there has said it."""
        launch = self.launch
        lead_here = launch.rank - launch.local_rank
        speaker = 1 if verdict.rank == lead_here else 0
        # rank 0 says its own failure, and the process that started all of them says what killed one
        spoken = (verdict.rank == 0 and verdict.host == self.host) if verdict.reason else launch.own
        if launch.local_rank == speaker and not spoken:
            say(f'error: {verdict.line()}')
        for child in multiprocessing.active_children():  # loader processes
            child.kill()
        os._exit(1)

    # ---------------------------------------------------------------------------------------------- the main thread

    def fail(self, reason: str) -> None:
        """Say to all ranks that this one fails.

        Returns only in rank 0, which then says so itself; another rank is ended by what rank 0 answers, or, where that
        does not come, returns after `VERDICT` seconds.
        """
        own = Verdict(self.launch.rank, self.host, os.getpid(), reason or 'it failed')
        if not self.launch.is_lead:
            self._send_all(own.reason.encode())
            self.thread.join(VERDICT)
        elif self.judged.acquire(blocking=False):
            self._send_all(json.dumps(own).encode())
        else:  # another rank was first: the thread is about to end this process
            self.thread.join(VERDICT)

    def wait_for_news(self, seconds: float) -> None:
        """Give the thread time to end this process, where another rank's death is the cause of an error here."""
        self.thread.join(seconds)

    def leave(self) -> None:
        """Part from the others, which all do the same."""
        if not self.launch.is_lead:
            self._send_all(DONE)
        self.thread.join()
        for link in self.links.values():
            link.close()


def _forget_inherited() -> None:
    """Close a forked child's copies of the connections: while a loader process held one, its rank would seem alive."""
    for watch in _watches:
        for link in watch.links.values():
            link.close()


os.register_at_fork(after_in_child=_forget_inherited)


def own_address() -> str:
    """Return the address of this machine under which the others reach it."""
    lead, port = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    family, kind, *_, address = socket.getaddrinfo(lead, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # sends nothing: it only finds the way
        own = probe.getsockname()[0]
    return lead if own.startswith('127.') or own == '::1' else own


def keep_alive(link: Connection) -> None:
    """Let the operating system ask now and then whether the other side is still there."""
    with socket.socket(fileno=os.dup(link.fileno())) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENCE // PROBE - 1)
