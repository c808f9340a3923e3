"""Through which network interface processes talk that meet at an address."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_ASKS_FOR_ADDRESS = 0x8915  # SIOCGIFADDR of Linux; the answer has it behind name, family and port


def resolved(host: str) -> tuple[socket.AddressFamily, str]:
    """Family and number of an address or a name. Raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    return family, str(address[0])


@contextmanager
def facing(host: str) -> Iterator[None]:
    """Lets the backends of torch.distributed that open in the block use the interface that faces `host`.

    On the loopback interface nobody else can reach them. Elsewhere gloo alone is told, which would take what the own
    name resolves to, often the loopback address; what the environment already says about it stays.
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
    """The name of the interface, None where it cannot be told."""
    if sys.platform != "linux" or family != socket.AF_INET:
        return None
    import fcntl  # which not every system has

    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # chooses a route, and sends nothing
        own = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has no address
                answer = fcntl.ioctl(probe, _ASKS_FOR_ADDRESS, name.encode().ljust(256, b"\0"))
                if answer[20:24] == own:
                    return name
    return None
