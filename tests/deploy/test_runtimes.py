"""OpenVINO's Cores: what they leave behind for signal handlers (that files run is tested in test_exported.py)."""
import ctypes
import gc
import sys
import threading

import numpy as np
import openvino
import pytest
from openvino import opset13

from dwnet.deploy.record import Record
from dwnet.deploy.runtimes import _SignalStack, open_exported, openvino_core, signal_stack_kept

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='waits for Linux: elsewhere OpenVINO has no such stack')


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    """A file that doubles images."""
    path = tmp_path_factory.mktemp('file') / 'double.xml'
    image = opset13.parameter([-1, 3, -1, -1], np.float32, name='image')
    doubled = opset13.multiply(image, np.float32(2))
    doubled.output(0).tensor.set_names({'map'})
    image.output(0).tensor.set_names({'image'})
    model = openvino.Model([doubled], [image], 'double')
    for key, text in Record('features', outputs={'map': 'twice the image'}).entries().items():
        model.set_rt_info(text, key)
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def signal_stack() -> int | None:
    now = _SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now))
    return now.pointer


def compiled(core, file):
    return core.compile_model(core.read_model(file), 'CPU')


def test_cores_of_others_leave_the_stack(file):
    """They end in the order in which they began, which leaves the first one's stack without ``signal_stack_kept``."""
    before = signal_stack()
    with signal_stack_kept():
        cores = [openvino.Core(), openvino.Core()]
        models = [compiled(core, file) for core in cores]
        assert signal_stack() != before
        for _ in range(2):
            models.pop(0), cores.pop(0)
            gc.collect()
        assert signal_stack() != before  # where openvino gives it back by itself, nothing of ours is needed
    assert signal_stack() == before


def test_files_share_one_core(file):
    """A file that is closed in another thread, as the page and notebooks do, leaves the stack."""
    kept = open_exported(file)
    stack = signal_stack()
    files = [open_exported(file)]
    image = np.ones((1, 3, 2, 2), np.float32)
    np.testing.assert_array_equal(files[0].run(image)['map'], 2 * image)
    closing = threading.Thread(target=lambda: (files.clear(), gc.collect()))
    closing.start()
    closing.join()
    assert signal_stack() == stack and openvino_core() is openvino_core()
    np.testing.assert_array_equal(kept.run(image)['map'], 2 * image)
