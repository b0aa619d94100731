"""The process group of a training: ranks from the launcher's environment variables, and the network between them."""
import ctypes
import datetime
import functools
import ipaddress
import math
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import torch.distributed

from dwnet.config_names import script
from dwnet.errors import UserError

# torchrun's variable → the same variable of another launcher.
_VARIABLES = {
    'pytorch': {},
    'slurm': dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID'),
    'mpi': dict(RANK='OMPI_COMM_WORLD_RANK', WORLD_SIZE='OMPI_COMM_WORLD_SIZE',
                LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK', LOCAL_WORLD_SIZE='OMPI_COMM_WORLD_LOCAL_SIZE'),
}


def started_by() -> str:
    """The launcher, as far as the environment tells: Slurm's variables do not count, being set without srun, too."""
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        return 'pytorch'
    # clouds set the size for a single process, too, which needs no launcher
    return 'mpi' if int(os.environ.get('OMPI_COMM_WORLD_SIZE', 1)) > 1 else 'none'


def world_size(launcher: str) -> int:
    """How many processes the launcher has started; works before the process group exists."""
    name = _VARIABLES.get(launcher, {}).get('WORLD_SIZE', 'WORLD_SIZE')
    return 1 if launcher == 'none' else int(os.environ.get(name, 1))


def is_first(launcher: str) -> bool:
    """Whether this process has rank 0; works before the process group exists."""
    return launcher == 'none' or os.environ.get(_VARIABLES.get(launcher, {}).get('RANK', 'RANK'), '0') == '0'


def set_environment(launcher: str) -> None:
    """Sets torchrun's variables from those of the launcher: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and others.

    Args:
        launcher: ``'pytorch'`` (torchrun), ``'slurm'`` or ``'mpi'``, which started this process.

    Raises:
        UserError: If the launcher's variables are missing.
    """
    env, names = os.environ, _VARIABLES[launcher]
    for name, source in names.items():
        if source in env:
            env[name] = env[source]
    if env.get('WORLD_SIZE') == '1':
        _set_alone()
    elif launcher == 'slurm':
        _set_slurm_master()
    needed = ['RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT']
    if missing := [names.get(name, name) for name in needed if name not in env]:
        raise UserError(f"launcher '{launcher}' did not set {', '.join(missing)}: start the tools by "
                        f"{script('dist_train.sh')}, or slurm_train.sh or mpi_train.sh beside it")
    if launcher == 'slurm':
        env['LOCAL_WORLD_SIZE'] = str(math.ceil(int(env['WORLD_SIZE']) / int(env.get('SLURM_STEP_NUM_NODES', 1))))


def _set_alone() -> None:
    """Makes a single process its own master, where the launcher sets no address."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    for name, value in dict(RANK=0, LOCAL_RANK=0, MASTER_ADDR='127.0.0.1', MASTER_PORT=port).items():
        os.environ.setdefault(name, str(value))


def _set_slurm_master() -> None:
    env = os.environ
    if 'MASTER_ADDR' not in env:  # take the first machine of the job
        nodes = env.get('SLURM_STEP_NODELIST') or env.get('SLURM_NODELIST', '')
        try:
            names = subprocess.run(['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True).stdout
        except FileNotFoundError as error:
            raise UserError('scontrol, which names the machines of the job, is missing: set MASTER_ADDR') from error
        env['MASTER_ADDR'] = next(iter(names.split()), '127.0.0.1')
    # a different port for each job on a machine, below the ports that the kernel hands out
    job, step = (int(env.get(name, 0)) for name in ('SLURM_JOB_ID', 'SLURM_STEP_ID'))
    env.setdefault('MASTER_PORT', str(20000 + (job * 10 + step) % 10000))


def join(backend: str = 'nccl', timeout: float | None = None, **_) -> None:
    """Joins the process group, on this process's GPU, or over gloo if there is no GPU.

    Replaces mmengine's ``init_dist``, which needs a GPU. After a restart PyTorch's own store still holds the addresses
    of dead processes: a process that reads an old address cannot connect, or waits. So each restart has its own prefix.

    Args:
        backend: Backend for GPUs. All arguments come from ``env_cfg.dist_cfg``.
        timeout: Seconds that a collective operation waits for the other processes; by default 600 with NCCL, 1800 with
            gloo.

    Raises:
        UserError: If there are more processes than GPUs, or the first machine cannot be reached.
    """
    env = os.environ
    gpus, here = torch.cuda.device_count(), int(env.get('LOCAL_WORLD_SIZE', 1))
    if gpus == 0:
        backend = 'gloo'
        _choose_interface()
    elif gpus == 1 < here and 'TORCHELASTIC_RUN_ID' not in env:  # Slurm and mpirun can show each process one GPU
        env['LOCAL_RANK'] = '0'
        torch.cuda.set_device(0)
    elif here > gpus:
        raise UserError(f'{here} processes for {gpus} GPUs: start fewer, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to '
                        'run on the CPU')
    else:
        torch.cuda.set_device(int(env['LOCAL_RANK']))
    rank, world_size = int(env['RANK']), int(env['WORLD_SIZE'])
    hosted = env.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'  # torchrun runs the store
    store = torch.distributed.TCPStore(env['MASTER_ADDR'], int(env['MASTER_PORT']), world_size,
                                       is_master=rank == 0 and not hosted, wait_for_workers=False)
    store = torch.distributed.PrefixStore(f"attempt{env.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size,
                                         timeout=None if timeout is None else datetime.timedelta(seconds=timeout))


def end_with_parent() -> None:
    """Asks Linux to end orphaned processes, which could wait for each other for ever.

    If the launcher dies, the kernel sends SIGTERM to this process; if this process dies, the kernel kills the data
    workers that this process forked. Workers that are spawned, or forked by a server, watch their parent in PyTorch's
    code. Other systems than Linux have no such request.
    """
    if sys.platform == 'linux':
        at_death_of_parent = functools.partial(ctypes.CDLL(None).prctl, 1)  # PR_SET_PDEATHSIG
        at_death_of_parent(signal.SIGTERM)
        os.register_at_fork(after_in_child=functools.partial(at_death_of_parent, signal.SIGKILL))


def _choose_interface() -> None:
    """Makes gloo use the network interface that leads to the first machine.

    By default gloo uses the address of this machine's name: on Debian 127.0.1.1, which no other machine can reach.
    """
    master, port = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    try:
        family, *_, address = socket.getaddrinfo(master, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # sends nothing: the kernel only looks up the route
            own = probe.getsockname()[0]
    except OSError as error:
        raise UserError(f'MASTER_ADDR={master} cannot be reached from {socket.gethostname()}: {error}') from error
    world_size = os.environ['WORLD_SIZE']
    if (ipaddress.ip_address(own).is_loopback
            and os.environ.get('LOCAL_WORLD_SIZE', world_size) != world_size):
        raise UserError(f'MASTER_ADDR={master} is {socket.gethostname()} itself, by an address ({own}) that no '
                        'other machine can reach; set MASTER_ADDR to its address in the network')
    name = _interface_of_ipv6(own) if family == socket.AF_INET6 else _interface_of_ipv4(own)
    if name is not None:
        os.environ.setdefault('GLOO_SOCKET_IFNAME', name)


def _interface_of_ipv4(address: str) -> str | None:
    if sys.platform != 'linux':  # only Linux answers the request below; users can set GLOO_SOCKET_IFNAME
        return None
    import fcntl  # not on Windows
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe, 0x8915, struct.pack('256s', name.encode()))  # SIOCGIFADDR
            except OSError:  # the interface has no address
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return None


def _interface_of_ipv6(address: str) -> str | None:
    """Searches Linux's table of addresses; each line has 32 hexadecimal digits, four numbers and the interface."""
    table, packed = Path('/proc/net/if_inet6'), ipaddress.ip_address(address.partition('%')[0]).packed
    lines = table.read_text().splitlines() if table.is_file() else []
    return next((line.split()[-1] for line in lines if bytes.fromhex(line.split()[0]) == packed), None)
