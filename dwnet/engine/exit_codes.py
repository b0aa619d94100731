"""Exit codes and last words of a command, whatever stops the command."""
import errno
import sys
import warnings
from collections.abc import Callable

from torch.distributed.elastic.multiprocessing.errors import record

from dwnet.errors import UserError, one_line

from .hooks.preemption import EXIT_CODE, Preempted

# A folder in which the user may not write, a file in the place of a folder, a disk that is full or read-only
_OF_THE_DISK = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def run_command(main: Callable[[], None]) -> None:
    """Runs ``main``; a mistake of the user ends it with one line and exit code 2.

    Of several processes, the first that fails has its error in the launcher's last words.
    """
    # to find the toolboxes' configs mmengine imports what setup.py keeps there (open-mmlab/mmengine#1676)
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated')
    try:
        record(main)()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.last_value = error  # as the interpreter does: other processes learn that this one has failed
        sys.exit(2)
    except Preempted as error:
        print(error, file=sys.stderr)
        if error.alone:
            sys.last_value = error
        sys.exit(EXIT_CODE)
    except RuntimeError as error:
        if 'DataLoader worker (pid' not in str(error):
            raise
        print(f'error: {one_line(error)}: a worker ends so when RAM or shared memory runs out (df -h /dev/shm; in a '
              'container: --shm-size); take fewer, --cfg-options train_dataloader.num_workers=…, or smaller batches',
              file=sys.stderr)
        sys.last_value = error
        sys.exit(1)
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        print(f"error: {error.filename or 'a file'} cannot be written ({error.strerror}): make room, or name a folder "
              'that is yours', file=sys.stderr)
        sys.last_value = error
        sys.exit(2)
    except KeyboardInterrupt as error:
        print('interrupted', file=sys.stderr)
        sys.last_value = error
        sys.exit(130)
