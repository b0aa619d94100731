"""Ends a process when another process of the same training dies or cannot be reached.

A collective operation cannot tell a dead machine from a slow one, so its timeout must be many minutes: all ranks wait
that long while rank 0 computes box AP or writes to a slow disk. Here each process keeps an idle connection to rank 0.
The kernel of a living machine answers keep-alive probes, however busy the process is. If no answer comes for ``LIMIT``
seconds, or the other process dies, this process ends with an error message, and the launcher can act.
"""
import atexit
import os
import secrets
import selectors
import socket
import struct
import sys
import threading
import time

import torch
from mmengine.dist import broadcast, get_dist_info

from dwnet.errors import UserError

LIMIT = 45  # seconds
_GRACE = 5  # seconds for this process's own error, or the launcher, to come first
_GREETING = struct.Struct('!QI')  # token, rank
_FAREWELL = b'.'


def watch_others() -> None:
    """Starts the watch; every process of the group must call this function.

    Raises:
        UserError: If rank 0 cannot listen, or cannot be reached.
    """
    rank, world_size = get_dist_info()
    if world_size == 1:
        return
    server = _listen(world_size) if rank == 0 else None
    # without the token a stranger who finds the port could join, and end the training by leaving
    key = torch.tensor([server.getsockname()[1], secrets.randbits(62)] if server else [0, 0])
    broadcast(key)
    port, token = key.tolist()
    if not port:
        raise UserError('rank 0 can open no port for the other processes to watch it: all are taken or forbidden')
    others: dict[socket.socket, str] = {}
    if server is None:
        connection = _connect(os.environ['MASTER_ADDR'], port)
        connection.sendall(_GREETING.pack(token, rank))
        others[connection] = f"rank 0 ({os.environ['MASTER_ADDR']})"
    atexit.register(_say_farewell, others)
    threading.Thread(target=_watch, args=(others, server, token, world_size - 1), daemon=True).start()


def _listen(backlog: int) -> socket.socket | None:
    """A server on a free port of all networks, with IPv4 and IPv6 where available; None if no port is free."""
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(('', 0), family=socket.AF_INET6 if both else socket.AF_INET, backlog=backlog,
                                    dualstack_ipv6=both)
    except OSError:
        return None


def _connect(master: str, port: int) -> socket.socket:
    try:
        return socket.create_connection((master, port), timeout=LIMIT)
    except OSError as error:
        raise UserError(f'rank 0 ({master}) cannot be reached on port {port} ({error}), where the processes watch each '
                        'other; open all ports between the machines of a training') from error


def _watch(others: dict[socket.socket, str], server: socket.socket | None, token: int, count: int) -> None:
    if server is not None:
        with server:
            _accept(others, server, token, count)
    with selectors.DefaultSelector() as selector:
        for connection in others:
            _keep_alive(connection)
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                try:
                    word = key.fileobj.recv(1)
                except OSError as error:
                    _end(f'{others[key.fileobj]} cannot be reached ({error.strerror}): its machine or the network is '
                         'down')
                if not word:
                    _end(f'{others[key.fileobj]} has died; its own messages may say why')
                selector.unregister(key.fileobj)  # the other process has ended as it should


def _accept(others: dict[socket.socket, str], server: socket.socket, token: int, count: int) -> None:
    while len(others) < count:
        connection, address = server.accept()
        connection.settimeout(_GRACE)
        try:
            given, rank = _GREETING.unpack(connection.recv(_GREETING.size, socket.MSG_WAITALL))
        except (OSError, struct.error):
            given = None
        if given == token:
            others[connection] = f"rank {rank} ({address[0].removeprefix('::ffff:')})"  # an IPv4 address within IPv6
        else:
            connection.close()


def _keep_alive(connection: socket.socket) -> None:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (('TCP_KEEPIDLE', LIMIT // 3), ('TCP_KEEPINTVL', LIMIT // 9), ('TCP_KEEPCNT', 6)):
        if hasattr(socket, option):  # macOS and Windows lack some; the system's limits hold
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _end(reason: str) -> None:
    print(f'error: {reason}. This process ends, too; go on with --resume.', file=sys.stderr, flush=True)
    time.sleep(_GRACE)
    os._exit(1)


def _say_farewell(others: dict[socket.socket, str]) -> None:
    """Says at the end of this process that no error is the cause; the interpreter puts errors in ``sys.last_value``."""
    if not hasattr(sys, 'last_value'):
        for connection in others:
            try:
                connection.sendall(_FAREWELL)
            except OSError:  # the other process has ended already
                continue
