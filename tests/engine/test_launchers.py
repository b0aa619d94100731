"""The launchers as a user types them, on CPUs, and what happens to all processes when one is lost."""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from argparse import ArgumentParser
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_command
from test_tools import CLASSIFICATION, CPU, small

from dwnet.checkpoint import read_checkpoint
from dwnet.commands._arguments import add_config_arguments
from dwnet.engine.distributed import peer_liveness, process_group
from dwnet.engine.distributed.process_group import join, set_environment
from dwnet.errors import UserError


class Launched:
    """A command in the background, all whose processes can be found by a mark in their environment."""

    def __init__(self, log: Path, *command, **environment) -> None:
        self.log, self._mark = log, f'MARK={uuid.uuid4().hex}'
        env = {**os.environ, 'PYTHONPATH': str(ROOT), **CPU, **environment, **dict([self._mark.split('=')])}
        with log.open('w') as file:
            self._process = subprocess.Popen([str(c) for c in command], cwd=ROOT, env=env, stdout=file, stderr=file)

    def _processes(self) -> dict[int, tuple[int, list[str]]]:
        """Process → its parent and its environment."""
        found = {}
        for folder in Path('/proc').glob('[0-9]*'):
            try:
                environment = (folder / 'environ').read_text().split('\0')
                parent = int((folder / 'stat').read_text().rpartition(')')[2].split()[1])
            except (OSError, UnicodeDecodeError):  # it has just ended, or is another's
                continue
            if self._mark in environment:
                found[int(folder.name)] = parent, environment
        return found

    def pids(self) -> list[int]:
        return list(self._processes())

    def rank(self, rank: int) -> int:
        """The process of this rank; its data workers have the same environment."""
        ranks = {pid: parent for pid, (parent, env) in self._processes().items() if f'RANK={rank}' in env}
        process, = (pid for pid, parent in ranks.items() if parent not in ranks)
        return process

    def wait_for(self, pattern: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not self.says(pattern):
            running = self._process.poll() is None
            assert (running or self.says(pattern)) and time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(.1)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, seconds: float) -> int:
        return self._process.wait(seconds)

    def says(self, pattern: str) -> bool:
        return re.search(pattern, self.log.read_text()) is not None

    def wait_until_none_is_left(self, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while self.pids():
            assert time.monotonic() < end, [Path(f'/proc/{pid}/stat').read_text() for pid in self.pids()]
            time.sleep(.2)


@pytest.fixture
def launch(tmp_path):
    """Starts commands, and leaves none of their processes behind."""
    launched = []

    def start(*command, **environment) -> Launched:
        launched.append(Launched(tmp_path / f'log{len(launched)}', *command, **environment))
        return launched[-1]

    yield start
    for each in launched:
        for pid in each.pids():
            os.kill(pid, signal.SIGKILL)


def train_two(data: Path, work_dir: Path, **options) -> list:
    return ['bash', 'tools/dist_train.sh', CLASSIFICATION, '2', '--work-dir', work_dir,
            *small(CLASSIFICATION, data, **options)]


@pytest.mark.parametrize('script, arguments, form', [
    ('slurm_train.sh', ['gpu', 'name'], 'PARTITION JOB_NAME CONFIG [options'),
    ('slurm_test.sh', ['gpu', 'name', CLASSIFICATION], 'PARTITION JOB_NAME CONFIG CHECKPOINT [options'),
    ('mpi_train.sh', [CLASSIFICATION, '2'], 'NUMBER_OF_PROCESSES CONFIG [options')])
def test_launchers_say_how_they_are_called(script, arguments, form):
    done = run_command('bash', f'tools/{script}', *arguments, check=False)
    assert done.returncode == 2 and done.stderr.startswith(f'usage: tools/{script} {form}')


def fake(folder: Path, name: str) -> str:
    """A PATH on which ``name`` prints its arguments and the variables that matter."""
    (folder / name).write_text('#!/bin/sh\necho "$@"\necho "$MASTER_ADDR:$MASTER_PORT"\n')
    (folder / name).chmod(0o755)
    return f'{folder}:{os.environ["PATH"]}'


@pytest.mark.parametrize('environment, expected', [
    ({}, '--ntasks 8 --ntasks-per-node 8 --gres gpu:8 --cpus-per-task 5'),
    (dict(GPUS='2', SRUN_ARGS='--time 1:00 --quiet'), '--ntasks 2 --ntasks-per-node 2 --gres gpu:2 --cpus-per-task 5 '
     '--kill-on-bad-exit=1 --time 1:00 --quiet'),
    (dict(GPUS='16', GPUS_PER_NODE='4', CPUS_PER_TASK='9'), '--ntasks 16 --ntasks-per-node 4 --gres gpu:4 '
     '--cpus-per-task 9'),
    (dict(GPUS='0', NTASKS='2', NTASKS_PER_NODE='1'), '--ntasks 2 --ntasks-per-node 1 --cpus-per-task 5')])
def test_what_slurm_is_asked_for(environment, expected, tmp_path):
    for script, rest in (('train', ['c.py']), ('test', ['c.py', 'w.pth'])):
        done = run_command('bash', f'tools/slurm_{script}.sh', 'part', 'job', *rest, '--out', 'a b',
                           PATH=fake(tmp_path, 'srun'), **environment)
        assert done.stdout.startswith(f'--partition part --job-name job {expected}')
        assert f'tools/{script}.py {" ".join(rest)} --out a b --launcher slurm\n' in done.stdout


@pytest.mark.parametrize('environment, master', [
    ({}, '127.0.0.1:'), (dict(PORT='123'), '127.0.0.1:123'), (dict(HOSTFILE='hosts'), 'first:'),
    (dict(HOSTFILE='hosts', MASTER_ADDR='second', MASTER_PORT='5'), 'second:5')])
def test_what_mpirun_is_asked_for(environment, master, tmp_path):
    (tmp_path / 'hosts').write_text('# two machines\n\nfirst slots=8\nsecond slots=8\n')
    if 'HOSTFILE' in environment:
        environment = {**environment, 'HOSTFILE': str(tmp_path / 'hosts')}
    done = run_command('bash', 'tools/mpi_train.sh', '16', 'c.py', '--amp', PATH=fake(tmp_path, 'mpirun'),
                       **environment)
    command, address = done.stdout.splitlines()
    assert command.startswith('-np 16 ') and command.endswith('tools/train.py c.py --amp --launcher mpi')
    assert '--bind-to none -x MASTER_ADDR -x MASTER_PORT' in command
    assert ('--hostfile' in command) == ('HOSTFILE' in environment)
    assert address.startswith(master) and int(address.split(':')[1]) > 0


@pytest.mark.parametrize('environment, launcher', [
    ({}, 'none'), (dict(TORCHELASTIC_RUN_ID='x'), 'pytorch'), (dict(OMPI_COMM_WORLD_SIZE='2'), 'mpi'),
    (dict(OMPI_COMM_WORLD_SIZE='1'), 'none'),
    (dict(SLURM_NTASKS='2'), 'none')])
def test_the_environment_tells_the_launcher(environment, launcher, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parser, alone = ArgumentParser(), ArgumentParser()
    add_config_arguments(parser, launched=True)
    for old in ([], ['--local-rank=1'], ['--local_rank', '1']):
        assert parser.parse_args(['config.py', *old]).launcher == launcher
    add_config_arguments(alone)  # of commands that work alone
    assert alone.parse_args(['config.py']).launcher == 'none'


@pytest.mark.parametrize('launcher, given', [
    ('pytorch', dict(RANK='3', WORLD_SIZE='4', LOCAL_RANK='1', LOCAL_WORLD_SIZE='2', MASTER_ADDR='a', MASTER_PORT='1')),
    ('slurm', dict(SLURM_PROCID='3', SLURM_NTASKS='4', SLURM_LOCALID='1', SLURM_STEP_NUM_NODES='2', MASTER_ADDR='a',
                   SLURM_JOB_ID='12', SLURM_STEP_ID='1')),
    ('mpi', dict(OMPI_COMM_WORLD_RANK='3', OMPI_COMM_WORLD_SIZE='4', OMPI_COMM_WORLD_LOCAL_RANK='1',
                 OMPI_COMM_WORLD_LOCAL_SIZE='2', MASTER_ADDR='a', MASTER_PORT='1'))])
def test_every_launcher_is_understood(launcher, given, monkeypatch):
    monkeypatch.setattr(os, 'environ', dict(given))
    set_environment(launcher)
    names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR')
    assert [os.environ[name] for name in names] == ['3', '4', '1', '2', 'a']
    assert os.environ['MASTER_PORT'] == ('20121' if launcher == 'slurm' else '1')
    given.popitem()
    given.pop(next(iter(given)))
    monkeypatch.setattr(os, 'environ', dict(given))
    with pytest.raises(UserError, match=f"launcher '{launcher}' did not set .*RANK|PROCID"):
        set_environment(launcher)


@pytest.mark.parametrize('launcher, given', [
    ('pytorch', dict(WORLD_SIZE='1')), ('slurm', dict(SLURM_NTASKS='1')), ('mpi', dict(OMPI_COMM_WORLD_SIZE='1'))])
def test_a_world_of_one_needs_no_variables(launcher, given, monkeypatch):
    monkeypatch.setattr(os, 'environ', dict(given))
    set_environment(launcher)
    names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR')
    assert [os.environ[name] for name in names] == ['0', '1', '0', '127.0.0.1']
    assert 0 < int(os.environ['MASTER_PORT']) < 65536


def test_mpi_of_several_needs_an_address(monkeypatch):
    monkeypatch.setattr(os, 'environ', dict(OMPI_COMM_WORLD_SIZE='2', OMPI_COMM_WORLD_RANK='0',
                                            OMPI_COMM_WORLD_LOCAL_RANK='0'))
    with pytest.raises(UserError, match='did not set MASTER_ADDR, MASTER_PORT: start'):
        set_environment('mpi')


def test_an_address_that_others_cannot_reach_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setattr(os, 'environ', dict(RANK='0', WORLD_SIZE='4', LOCAL_RANK='0', LOCAL_WORLD_SIZE='2',
                                            MASTER_ADDR='localhost', MASTER_PORT='29500'))
    with pytest.raises(UserError, match='that no other machine can reach'):
        join()
    os.environ['MASTER_ADDR'] = 'no-such-host.invalid'
    with pytest.raises(UserError, match='MASTER_ADDR=no-such-host.invalid cannot be reached from'):
        join()


def has_ipv6() -> bool:
    try:
        with socket.create_server(('::1', 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason='this machine has no IPv6')


@pytest.mark.parametrize('master, interface', [('127.0.0.1', 'lo'), pytest.param('::1', 'lo', marks=needs_ipv6)])
def test_gloo_takes_the_network_of_the_address(master, interface, monkeypatch):
    monkeypatch.setattr(os, 'environ', dict(WORLD_SIZE='2', MASTER_ADDR=master, MASTER_PORT='29500'))
    process_group._choose_interface()
    assert os.environ['GLOO_SOCKET_IFNAME'] == interface
    os.environ['LOCAL_WORLD_SIZE'] = '1'
    with pytest.raises(UserError, match='that no other machine can reach'):
        process_group._choose_interface()


@needs_ipv6
@pytest.mark.parametrize('master', ['127.0.0.1', '::1'])
def test_two_processes_meet_by_either_version_of_ip(master, launch, tmp_path):
    """Two processes join and watch each other over IPv4 or IPv6, and one notices the other's death."""
    with socket.create_server((master, 0), family=socket.AF_INET6 if ':' in master else socket.AF_INET) as server:
        port = server.getsockname()[1]
    both = [launch(sys.executable, 'tests/watched.py', RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank),
                   LOCAL_WORLD_SIZE='2', MASTER_ADDR=master, MASTER_PORT=str(port)) for rank in range(2)]
    for each in both:
        each.wait_for('sum 1')
    both[1].kill()
    both[0].wait_for(re.escape(f'error: rank 1 ({master}) has died'))
    assert both[0].wait(seconds=20) == 1


@pytest.mark.skipif(os.name != 'posix' or os.geteuid() or not shutil.which('unshare'),
                    reason='waits for root, who can give a process a machine name of its own')
def test_a_machine_whose_name_has_no_address_starts():
    """torchrun looked the name up and waited for ever; minimal containers have such names."""
    done = subprocess.run(
        ['unshare', '--uts', 'bash', '-c',
         f'hostname no-such-machine; bash tools/dist_train.sh {CLASSIFICATION} 1 --help'],
        cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and '--work-dir' in done.stdout, done.stderr


def test_a_watch_without_a_port_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(peer_liveness, 'get_dist_info', lambda: (0, 2))
    monkeypatch.setattr(peer_liveness, 'broadcast', lambda _: None)
    monkeypatch.setattr(socket, 'create_server', lambda *_, **__: (_ for _ in ()).throw(OSError('in use')))
    with pytest.raises(UserError, match='rank 0 can open no port'):
        peer_liveness.watch_others()


def test_a_watch_that_is_not_let_in_is_told_in_one_line(monkeypatch):
    with socket.create_server(('127.0.0.1', 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setattr(peer_liveness, 'get_dist_info', lambda: (1, 2))
    monkeypatch.setattr(peer_liveness, 'broadcast', lambda key: key.copy_(torch.tensor([closed, 5])))
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    with pytest.raises(UserError, match=rf'rank 0 \(127.0.0.1\) cannot be reached on port {closed} \(.*refused'):
        peer_liveness.watch_others()


@pytest.mark.long
def test_without_its_launcher_no_process_goes_on(launch, small_digits, tmp_path):
    training = launch(*train_two(small_digits, tmp_path / 'w', train_cfg__max_epochs=50))
    training.wait_for(r'Epoch\(train\)')
    training.kill()
    training.wait_until_none_is_left()


@pytest.mark.long
def test_when_a_process_dies_all_end(launch, small_digits, tmp_path):
    training = launch(*train_two(small_digits, tmp_path / 'w', train_cfg__max_epochs=50))
    training.wait_for(r'Epoch\(train\)')
    victim = training.rank(1)
    os.kill(victim, signal.SIGKILL)
    assert training.wait(seconds=60) != 0
    assert training.says('Root Cause') and training.says(rf'exitcode  : -9 \(pid: {victim}\)')
    training.wait_until_none_is_left()


@pytest.mark.long
def test_when_a_process_dies_training_goes_on_after_a_restart(launch, small_digits, tmp_path):
    """Even where the work dir holds an older training, which must not be taken for this one."""
    work_dir = tmp_path / 'w'
    work_dir.mkdir()
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_7.pth'))
    os.utime(work_dir / 'last_checkpoint', (0, 0))
    options = train_two(small_digits, work_dir, train_cfg__max_epochs=4, train_cfg__val_interval=9)
    training = launch(*options, MAX_RESTARTS='2')
    training.wait_for(r'train\) +\[1\]\[ *3/')  # before the first checkpoint
    os.kill(training.rank(1), signal.SIGKILL)
    training.wait_for(r'train\) +\[3\]\[ *3/')  # and behind the second
    os.kill(training.rank(1), signal.SIGKILL)
    assert training.wait(seconds=120) == 0
    log, epoch = training.log.read_text(), 1347 // 64 // 2
    assert len(re.findall(r'train\) +\[1\]\[ *1/', log)) == 2, 'the first time there is nothing to go on from'
    assert len(re.findall(r'train\) +\[3\]\[ *1/', log)) == 2
    assert f'resumed epoch: 2, iter: {2 * epoch}' in log
    assert read_checkpoint(work_dir / 'epoch_4.pth')['meta']['iter'] == 4 * epoch
    training.wait_until_none_is_left()


def ip(*arguments: str) -> bool:
    return subprocess.run(['ip', *arguments], capture_output=True).returncode == 0


@pytest.fixture
def hosts():
    """Two network namespaces, joined by a cable: hosts that share the disk and nothing else."""
    if shutil.which('ip') is None:
        pytest.skip('there is no ip command (Debian: iproute2)')
    mark = uuid.uuid4().hex[:6]
    names = [f'dwnet-{mark}-{i}' for i in range(2)]
    try:
        if not all(ip('netns', 'add', name) for name in names):
            pytest.skip('network namespaces can be made by root alone')
        veth = ['type', 'veth', 'peer', 'name', 'cable', 'netns', names[1]]
        if not ip('link', 'add', 'cable', 'netns', names[0], *veth):
            pytest.skip('this kernel has no virtual network cables (veth)')
        for i, name in enumerate(names):
            assert ip('-n', name, 'addr', 'add', f'10.99.0.{i + 1}/24', 'dev', 'cable')
            assert ip('-n', name, 'link', 'set', 'lo', 'up') and ip('-n', name, 'link', 'set', 'cable', 'up')
        yield names
    finally:
        for name in names:
            ip('netns', 'del', name)


def on_both(launch, hosts: list[str], data: Path, work_dir: Path, *extra: str, **environment) -> list[Launched]:
    """Four epochs on two hosts; one process on each."""
    options = small(CLASSIFICATION, data, train_cfg__max_epochs=4, train_cfg__val_interval=4,
                    train_dataloader__batch_size=32)
    return [launch('ip', 'netns', 'exec', host, 'bash', 'tools/dist_train.sh', CLASSIFICATION, '1', '--work-dir',
                   work_dir, *extra, *options, NNODES='2', NODE_RANK=str(i), MASTER_ADDR='10.99.0.1', **environment)
            for i, host in enumerate(hosts)]


@pytest.mark.long
@pytest.mark.parametrize('restarts', ['0', '1'])
def test_two_hosts_one_of_which_is_cut_off(launch, hosts, small_digits, tmp_path, restarts):
    """Both end within a minute, each saying why; when the network is back they go on, anew or by themselves."""
    work_dir, epoch = tmp_path / 'w', 1347 // 32 // 2
    trainings = on_both(launch, hosts, small_digits, work_dir, MAX_RESTARTS=restarts)
    trainings[0].wait_for(r'train\) +\[2\]\[ *3/')
    ip('-n', hosts[1], 'link', 'set', 'cable', 'down')
    cut = time.monotonic()
    for training, other in zip(trainings, ('1 (10.99.0.2)', '0 (10.99.0.1)')):
        training.wait_for(re.escape(f'error: rank {other} cannot be reached'), 60 - (time.monotonic() - cut))
    if restarts == '0':
        assert all(training.wait(60 - (time.monotonic() - cut)) != 0 for training in trainings)
        assert all(not training.pids() for training in trainings)
    ip('-n', hosts[1], 'link', 'set', 'cable', 'up')
    if restarts == '0':
        trainings = on_both(launch, hosts, small_digits, work_dir, '--resume')
    assert [training.wait(240) for training in trainings] == [0, 0], trainings[1].log.read_text()[-3000:]
    # of the first epoch, or of a later one where the machine was slow to cut the cable
    resumed = re.search(r'resumed epoch: (\d+), iter: (\d+)', trainings[0].log.read_text())
    assert resumed and int(resumed[2]) == int(resumed[1]) * epoch > 0
    assert read_checkpoint(work_dir / 'epoch_4.pth')['meta']['iter'] == 4 * epoch


class Ended(Exception):
    pass


@pytest.mark.parametrize('farewell', [True, False])
def test_the_watch_knows_strangers_and_farewells(monkeypatch, farewell):
    """Strangers' connections are ignored; a member's end counts, unless the member has announced it."""

    def end(reason: str):
        raise Ended(reason)

    monkeypatch.setattr(peer_liveness, '_end', end)
    monkeypatch.delattr(sys, 'last_value', raising=False)  # of a test before this one
    server = socket.create_server(('127.0.0.1', 0))
    strangers = [socket.create_connection(server.getsockname()) for _ in range(2)]
    strangers[0].close()
    strangers[1].sendall(peer_liveness._GREETING.pack(6, 1))
    member = socket.create_connection(server.getsockname())
    member.sendall(peer_liveness._GREETING.pack(7, 1))
    if farewell:
        peer_liveness._say_farewell({member: ''})
    member.close()
    if farewell:
        peer_liveness._watch({}, server, token=7, count=1)
    else:
        with pytest.raises(Ended, match=r'^rank 1 \(127.0.0.1\) has died'):
            peer_liveness._watch({}, server, token=7, count=1)


def test_who_fails_does_not_say_farewell(monkeypatch):
    here, there = socket.socketpair()
    monkeypatch.setattr(sys, 'last_value', UserError('damaged'), raising=False)
    peer_liveness._say_farewell({here: ''})
    here.close()
    assert there.recv(1) == b''
