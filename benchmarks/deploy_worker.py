"""Runs one model in one runtime, in a process of its own, and says how long it takes; benchmarks/deploy.py starts it.

The first argument is JSON: ``runtime``, ``files`` (batch → file), ``dtype``, ``compiled``, ``channels_last``,
``fused_attention``, ``threads``, ``images`` (a .npy file, as many as the largest batch) and ``outputs`` (the .npy file
to write). The process answers in lines that start with ``@``: first ``start_s``, from the first import to the first
output; then, for each request on standard input, the seconds ``s`` of a run, and ``peak_mib`` of the process. Only the
runtime is imported, because its memory counts.
"""
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def main() -> None:
    start = time.perf_counter()
    spec = json.loads(sys.argv[1])
    images = np.load(spec['images'])
    opened = dict(torch=open_torch, onnxruntime=open_onnxruntime, openvino=open_openvino)[spec['runtime']]
    prepare = opened(spec)
    run = prepare(images[:1])
    np.save(spec['outputs'], run())
    answer(start_s=time.perf_counter() - start)
    ready = {1: run}
    for line in sys.stdin:
        request = json.loads(line)
        batch = request['batch']
        if batch not in ready:
            ready[batch] = prepare(images[:batch])
        begin = time.perf_counter()
        for _ in range(request['repeats']):
            ready[batch]()
        answer(s=(time.perf_counter() - begin) / request['repeats'], peak_mib=peak_mib())


def answer(**values: float) -> None:
    print('@' + json.dumps(values), flush=True)


def peak_mib() -> float:
    return int(re.search(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())[1]) / 1024


# Each opener returns a function that prepares the runs of one batch, (B, …) in float32.
def open_torch(spec: dict) -> Callable:
    import torch
    torch.set_num_threads(spec['threads'])
    if spec['fused_attention']:
        import timm
        timm.layers.set_fused_attn(True, experimental=True)
    model = torch.load(spec['files']['1'], weights_only=False)
    model = torch.compile(model, dynamic=False) if spec['compiled'] else model

    def prepare(images: np.ndarray) -> Callable[[], np.ndarray]:
        x = torch.from_numpy(images).to(getattr(torch, spec['dtype']))
        x = x.contiguous(memory_format=torch.channels_last) if spec['channels_last'] else x

        @torch.inference_mode()
        def run() -> np.ndarray:
            return model(x).float().numpy()

        return run

    return prepare


def open_onnxruntime(spec: dict) -> Callable:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec['threads']
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(spec['files']['1'], options, providers=['CPUExecutionProvider'])
    return lambda images: lambda: session.run(None, {'image': images})[0]


def open_openvino(spec: dict) -> Callable:
    import openvino
    core, precision = openvino.Core(), 'bf16' if spec['dtype'] == 'bfloat16' else 'f32'
    settings = {'INFERENCE_NUM_THREADS': spec['threads'], 'INFERENCE_PRECISION_HINT': precision}

    def prepare(images: np.ndarray) -> Callable[[], np.ndarray]:
        file = spec['files'][str(len(images))]
        request = core.compile_model(file, 'CPU', settings).create_infer_request()
        return lambda: request.infer([images], share_inputs=True, share_outputs=True)[0]

    return prepare


if __name__ == '__main__':
    main()
