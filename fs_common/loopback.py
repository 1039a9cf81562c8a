"""Which addresses only this machine reaches. Pure."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach what listens there. A name other than localhost may be anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
