"""A real terminal of 80 columns for a process, which records what the process draws."""

import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time

COLUMNS, LINES = 80, 24
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A context with a process whose input and output are a pseudo-terminal."""

    def __init__(self, command, **options):
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, **options)
        os.close(slave)
        self._written = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def read(self, seconds, until=""):
        """The output so far. Waits until the process has ended, `until` was written, or the time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not (until and until in self.text):
            if not select.select([self._master], [], [], 0.2)[0]:
                continue
            with contextlib.suppress(OSError):  # Linux raises it if the other end is closed
                if more := os.read(self._master, 65536):
                    self._written += more
                    continue
            self.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            break
        return self.text

    @property
    def text(self):
        return self._written.decode()

    @property
    def drawn(self):
        """Each state of each line, without terminal commands."""
        return [SEQUENCE.sub("", line).rstrip() for line in re.split(r"[\r\n]+", self.text)]
