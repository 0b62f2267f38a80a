"""One writer at a time in a folder."""

import errno
import fcntl
import json
import logging
import os
import socket
import time
import weakref
from pathlib import Path

from .errors import UserError

logger = logging.getLogger(__name__)

PATIENCE = 1  # seconds: a process that was forked a moment before its parent's end may hold the lock for as long
UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


class FolderLock:
    """A file in a folder, locked for as long as its owner trains there.

    The lock is the operating system's: it goes with the process, however that ends. Loader processes, which may
    outlive it by seconds, do not keep it. The file itself may survive its owner and is then no obstacle.

    Args:
        folder: it must exist.
        name: of the lock file.
        blocked: the error's words for a folder that is in use, such as 'another run trains in'.

    Raises:
        UserError: another process holds the lock; names it and the file.
        OSError: the file cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, name: str, blocked: str):
        self.path = Path(folder) / name
        self.file: int | None = None
        deadline = time.monotonic() + PATIENCE
        while self.file is None:
            self.file = self._take(f"{blocked} '{folder}'", time.monotonic() > deadline)
        _held.add(self)

    def _take(self, blocked: str, last: bool) -> int | None:
        """Return the locked file; None when its owner removed it meanwhile, or, unless this is the last try, has it."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = self._owner(os.pread(file, 4096, 0))
            os.close(file)
            if not last:
                time.sleep(0.05)
                return None
            raise UserError(
                f"{blocked}{owner}: wait for its end, or give another --exp_id (the lock is '{self.path}')"
            ) from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                os.close(file)
                raise
            logger.warning(f"'{self.path}' cannot be locked ({error.strerror}): see that no other run writes there")
        if not self._is_still_there(file):
            os.close(file)
            return None
        about = {'pid': os.getpid(), 'host': socket.gethostname(), 'since': time.strftime('%Y-%m-%d %H:%M:%S')}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(about).encode(), 0)
        return file

    def _is_still_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            return False

    @staticmethod
    def _owner(content: bytes) -> str:
        """Return who holds the lock, as far as its file can be read."""
        try:
            about = json.loads(content)
            return f' (process {about["pid"]} on {about["host"]}, since {about["since"]})'
        except (ValueError, TypeError, KeyError):
            return ''

    def forget(self) -> None:
        """Close the file of a lock that another process holds: this one was forked from it."""
        if self.file is not None:
            os.close(self.file)
            self.file = None

    def release(self) -> None:
        """Give the folder free and remove the file; once is enough, more does no harm."""
        if self.file is not None:
            self.path.unlink(missing_ok=True)
            self.forget()


_held: 'weakref.WeakSet[FolderLock]' = weakref.WeakSet()


def _forget_inherited() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_inherited)
