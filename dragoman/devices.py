"""Whether a model will run on a GPU, told without loading torch, which takes seconds."""

from __future__ import annotations

import ctypes
import importlib.util
import runpy
from pathlib import Path
from typing import Final

#: The device of AMD's driver; its builds of torch call their GPUs cuda as well.
_AMD_DEVICE: Final = Path("/dev/kfd")


def runs_on_cpu(device: str) -> bool:
    """``device``: as `--device` takes it. For ``auto`` what torch is going to find, as far as that can be told."""
    return not _finds_gpu() if device == "auto" else device == "cpu"


def _finds_gpu() -> bool:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    # A file of a few assignments, beside the module that loads everything.
    built_for = runpy.run_path(str(Path(found.origin).with_name("version.py")))
    if built_for.get("hip") is not None:
        return _AMD_DEVICE.exists()
    return built_for.get("cuda") is not None and _cuda_devices() > 0


def _cuda_devices() -> int:
    """Those that NVIDIA's driver shows this process (CUDA_VISIBLE_DEVICES); 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
