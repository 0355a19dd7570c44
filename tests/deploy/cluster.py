"""Plays what a cluster gives a pod, inside a network namespace of its own.

    cluster.py serve ADDRESS NAME,NAME… PORT=PORT…   an address, its names by DNS, ports passed on;
                                                     PORT=PORT=PEM: behind TLS, by that certificate
    cluster.py get URL [TOKEN]                       what a probe or Prometheus gets, as JSON

Prints "up" when it serves. Asks and is asked by nobody outside the namespace.
"""

import asyncio
import fcntl
import json
import socket
import ssl
import struct
import sys
import urllib.error
import urllib.request

SIOCSIFADDR, SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8916, 0x8913, 0x8914, 1


def bring_up(name, address):
    """ioctls of netdevice(7), so that no other tool is needed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        if address:
            sockaddr = struct.pack("<H", socket.AF_INET) + b"\0\0" + socket.inet_aton(address)
            fcntl.ioctl(control, SIOCSIFADDR, struct.pack("16s16s8x", name, sockaddr))
        request = struct.pack("16sH22x", name, 0)
        flags = struct.unpack("16sH22x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", name, flags | IFF_UP))


def question(packet):
    """The name and type asked for, and where the question ends (RFC 1035 §4.1)."""
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode())
        at += 1 + packet[at]
    return ".".join(labels).lower(), struct.unpack("!H", packet[at + 1 : at + 3])[0], at + 5


class Names(asyncio.DatagramProtocol):
    def __init__(self, names, address):
        self.names, self.address = names, socket.inet_aton(address)

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, packet, asker):
        name, kind, end = question(packet)
        known = name in self.names
        answers = 1 if known and kind == 1 else 0
        head = packet[:2] + struct.pack("!HHHHH", 0x8580 if known else 0x8583, 1, answers, 0, 0)
        answer = struct.pack("!HHHIH", 0xC00C, 1, 1, 1, 4) + self.address if answers else b""
        self.transport.sendto(head + packet[12:end] + answer, asker)


async def pipe(reader, writer):
    try:
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


def passing_on(port):
    async def accepted(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer))

    return accepted


async def serve(address, names, ports):
    bring_up(b"lo", None)
    bring_up(b"lo:0", address)
    loop = asyncio.get_running_loop()
    names = names.split(",")
    await loop.create_datagram_endpoint(lambda: Names(names, address), ("127.0.0.1", 53))
    for port in ports:
        outside, inside, *certificate = port.split("=")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if certificate else None
        if tls:
            tls.load_cert_chain(certificate[0])
        await asyncio.start_server(passing_on(int(inside)), address, int(outside), ssl=tls)
    print("up", flush=True)
    await asyncio.Event().wait()


def get(url, token=None):
    request = urllib.request.Request(url)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer = opener.open(request, timeout=10)
    except urllib.error.HTTPError as error:
        answer = error
    print(json.dumps({"status": answer.status, "body": answer.read().decode()}))


if sys.argv[1] == "serve":
    asyncio.run(serve(sys.argv[2], sys.argv[3], sys.argv[4:]))
else:
    get(*sys.argv[2:])
