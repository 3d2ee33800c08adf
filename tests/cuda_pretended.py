"""What the CUDA backend does on the host, beside a driver that pretends: see pretended_driver.c.

python cuda_pretended.py: {case: what came of it} as JSON on the standard output, for the package MLPK_CUDA_PACKAGE.
"""

import json
import os
import threading

import numpy as np

from mlpkernels.kernels import cuda as backend
from mlpkernels.kernels.cuda import driver
from mlpkernels.kernels.cuda.driver import cuda

SHAPE = (4, 3)
SGD = 0.1, 0.0, False, 0.0


class Interface:
    """An array on the GPU as another library has it."""

    def __init__(self, array, **others):
        address = array.__cuda_array_interface__["data"][0]
        self.__cuda_array_interface__ = {
            "shape": SHAPE, "strides": None, "typestr": "<f4", "data": (address, False), "version": 3, **others,
        }  # fmt: skip


class Lent:
    """The same by DLPack, over memory of the host that is said to be the GPU's."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, **_):
        return self.array.__dlpack__()


class Stream:
    """A stream as PyTorch has it."""

    def __init__(self, number):
        self.cuda_stream = number


def outcome(call):
    try:
        return str(call())
    except Exception as error:  # what came is what is asked
        return f"{type(error).__name__}: {error}"


def refusing(what, call):
    os.environ["REFUSE"] = what
    try:
        return outcome(call)
    finally:
        del os.environ["REFUSE"]


def softmax(z, out, **others):
    """A launch that does nothing: what comes back says whose memory it was."""
    backend.softmax(z, out, **others)
    return out.copy_to_host() if hasattr(out, "copy_to_host") else out


def in_a_thread(call):
    told = []
    thread = threading.Thread(target=lambda: told.append(outcome(call)))
    thread.start()
    thread.join()
    return told[0]


def main():
    host, there = np.ones(SHAPE, np.float32), cuda.to_device(np.full(SHAPE, 2, np.float32))

    def plain(**others):
        return np.isnan(softmax(host, np.ones(SHAPE, np.float32), **others)).all()

    def onto(out):
        return outcome(lambda: softmax(host, out) is out)

    own = cuda.stream()
    streams = (own, 0x4242, Stream(0x11), Stream(0))
    found = {
        "facts": driver.facts(),
        "room of the device comes back": outcome(plain),
        "in another thread": in_a_thread(plain),
        "streams": [outcome(lambda stream=stream: plain(stream=stream)) for stream in streams],
        "a device array is an output": outcome(lambda: softmax(there, there)[0].tolist()),
        "interface": [onto(Interface(there, **others)) for others in ({}, {"stream": 1}, {"version": 2})],
        "refused": [
            onto(Interface(there, data=(there.__cuda_array_interface__["data"][0], True))),
            onto(Interface(there, strides=(4, 16))),
            onto(Interface(there, typestr="<f2")),
        ],
        "DLPack": onto(Lent(np.ones(SHAPE, np.float32))),
        "a launch": refusing("cuLaunchKernel:701", plain),
        "loading": refusing("cuLibraryLoadData:209", lambda: backend.logistic(host, host.copy())),
        "no room to load": refusing("cuLibraryLoadData:2", lambda: backend.sgd_step(*np.ones((3, 4), "f"), *SGD)),
    }
    os.environ["MEMORY"] = "1000"
    found["no memory"] = outcome(lambda: backend.softmax(np.ones((40, 30), "f"), np.ones((40, 30), "f")))
    del os.environ["MEMORY"]
    found["behind it"] = outcome(plain)
    found["waiting"] = refusing("cuCtxSynchronize:700", plain)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
