"""Tells systemd how the service is (Type=notify): a line to the socket it names, nothing when there is none."""

from __future__ import annotations

import os
import socket

__all__ = ["notify_systemd"]


def notify_systemd(state: str) -> bool:
    """Sends a state such as `READY=1`. True when it was sent.

    Source: sd_notify(3), "Description": an AF_UNIX datagram to the path in NOTIFY_SOCKET; a leading @ is the abstract name space.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            return False
    return True
