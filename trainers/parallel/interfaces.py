"""The network interface that processes use to connect to an address."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_ASKS_FOR_ADDRESS = 0x8915  # SIOCGIFADDR of Linux; the answer holds the address after name, family and port


def resolved(host: str) -> tuple[socket.AddressFamily, str]:
    """Address family and numeric address of an address or a host name. Raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    return family, str(address[0])


@contextmanager
def facing(host: str) -> Iterator[None]:
    """Makes backends of torch.distributed that open in the block use the interface that leads to `host`.

    On the loopback interface, other machines cannot reach them. For other addresses only gloo is configured: by default
    it takes the address of the machine's own name, often the loopback address. A setting in the environment is kept.
    """
    family, address = resolved(host)
    if ipaddress.ip_address(address).is_loopback:
        name = "lo" if sys.platform == "linux" else "lo0"
        wanted = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}
    else:
        found = _interface_to(family, address)
        wanted = {"GLOO_SOCKET_IFNAME": found} if found and "GLOO_SOCKET_IFNAME" not in os.environ else {}
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def _interface_to(family: socket.AddressFamily, address: str) -> str | None:
    """The name of the interface; None if it is unknown."""
    if sys.platform != "linux" or family != socket.AF_INET:
        return None
    import fcntl  # not on every system

    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # chooses a route but sends nothing
        own = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(probe, _ASKS_FOR_ADDRESS, name.encode().ljust(256, b"\0"))
                if answer[20:24] == own:
                    return name
    return None
