"""Ends with 0 while the daemon in this container is alive: /livez says so."""

from __future__ import annotations

import http.client
import os
import sys

__all__ = ["is_alive"]


def is_alive(port: int) -> bool:
    """Whether /livez on loopback answers 200 within 4 s."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not is_alive(int(os.environ.get("MARGIN_MONITOR_HTTP__PORT", "9464"))))
