"""Telling whoever runs a daemon as a unit that it serves: systemd's protocol, a datagram to a socket it names.

Units of `Type=notify` count as started from then on, so what comes after them finds a daemon that answers.

Called by: the mains of the daemons.
"""

import os
import socket

VARIABLE = "NOTIFY_SOCKET"


def tell_ready() -> None:
    """Does nothing where nobody wants to know. Whoever asked and cannot be told is no reason to end."""
    address = os.environ.get(VARIABLE, "")
    if address[:1] not in ("/", "@"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        try:
            # "@" stands for the zero byte of a name that is in no directory.
            to.sendto(b"READY=1", address.replace("@", "\0", 1) if address[0] == "@" else address)
        except OSError:
            return
