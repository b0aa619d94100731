"""Process groups without a GPU: mmengine's ``init_dist`` always selects a CUDA device."""
import os
import subprocess

import torch.distributed

from dwnet.errors import UserError


def init_cpu_process_group(launcher: str) -> None:
    """Joins this process to the others over gloo.

    Args:
        launcher: ``'pytorch'`` (torchrun), ``'slurm'`` or ``'mpi'``: who set the environment variables
            that tell this process its rank.

    Raises:
        UserError: If the launcher's variables are not there.
    """
    rank, world_size, local_rank = {
        'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
        'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
        'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
    }[launcher]
    if launcher == 'slurm':
        if 'MASTER_ADDR' not in os.environ:  # the first of the job's machines
            nodes = subprocess.run(['scontrol', 'show', 'hostnames', os.environ.get('SLURM_NODELIST', '')],
                                   capture_output=True, text=True).stdout.split()
            os.environ['MASTER_ADDR'] = nodes[0] if nodes else '127.0.0.1'
        os.environ.setdefault('MASTER_PORT', '29500')
    needed = [rank, world_size, local_rank, 'MASTER_ADDR', 'MASTER_PORT']
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise UserError(f"launcher '{launcher}' did not set {', '.join(missing)}: start the tools by "
                        'tools/dist_train.sh or tools/dist_test.sh, or by srun or mpirun')
    os.environ['LOCAL_RANK'] = os.environ[local_rank]  # mmengine reads it later
    torch.distributed.init_process_group(
        'gloo', rank=int(os.environ[rank]), world_size=int(os.environ[world_size]))
