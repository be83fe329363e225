"""Reading from and writing to a descriptor of any kind, which others may share: each call waits, so it is for a thread.

No loop can do it for all kinds: what is ready may be gone when it is read, as another reader was faster, and a plain
file is always ready. Whether calls block is so for all who share the descriptor, and is left as it is.
"""

import os
import select


def read(descriptor: int, most: int) -> bytes:
    """What has come, at most so many bytes of it, after waiting for any; nothing where the input has ended.

    Raises:
        OSError: when it cannot be read.
    """
    while True:
        try:
            return os.read(descriptor, most)
        except BlockingIOError:
            _wait(descriptor, select.POLLIN)


def write(descriptor: int, data: bytes) -> None:
    """Write all of it, in its time.

    Raises:
        OSError: when it cannot be written, such as `BrokenPipeError` where nobody reads it any more.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            _wait(descriptor, select.POLLOUT)


def _wait(descriptor: int, until: int) -> None:
    waiting = select.poll()
    waiting.register(descriptor, until)
    waiting.poll()
