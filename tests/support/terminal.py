"""What a program draws on a terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import unicodedata


def drawn(columns, script):
    """What a Python program draws on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
    program = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.close(theirs)
    content = b""
    try:
        while piece := os.read(ours, 65536):
            content += piece
    except OSError:  # Linux: the other end is closed
        pass
    os.close(ours)
    program.communicate(timeout=60)
    assert program.returncode == 0, content
    return content.decode()


def cells(text):
    """Number of cells of a text."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
