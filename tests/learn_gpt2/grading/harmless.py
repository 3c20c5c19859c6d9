"""Lines that honest students' files hold, and that cost nobody a point.

Each is put into a right answer in one place: at the top (above the file's own imports), below its
imports, in front of `forward`, or at the end. `learn check` and `learn grade` must make the same of
each of them, and both must accept it.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One addition. where: top, below, forward or end; needs: packages that must be there."""

    text: str
    where: str = "below"
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its first line, for a test's name."""
        return self.text.strip().splitlines()[0][:60]

    @property
    def possible(self) -> bool:
        """Whether the packages that it imports are installed."""
        return all(importlib.util.find_spec(name) for name in self.needs)

    def put_into(self, source: str) -> str:
        """A right answer's source with this addition."""
        docstring = re.match(r'(?s)\s*""".*?"""\n', source)
        start = docstring.end() if docstring else 0
        if self.where == "top":
            return source[:start] + self.text + "\n" + source[start:]
        if self.where == "end":
            return source.rstrip("\n") + "\n\n\n" + self.text + "\n"
        if self.where == "forward":
            at = source.index("    def forward(")
            return source[:at] + f"    {self.text}\n" + source[at:]
        at = re.search(r"(?m)^(@|class |def )", source).start()
        return source[:at] + self.text + "\n\n\n" + source[at:]


def _top(*texts: str, needs: tuple[str, ...] = ()) -> list[Line]:
    return [Line(text, "top", needs) for text in texts]


def _below(*texts: str, needs: tuple[str, ...] = ()) -> list[Line]:
    return [Line(text, "below", needs) for text in texts]


def _end(*texts: str, needs: tuple[str, ...] = ()) -> list[Line]:
    return [Line(text, "end", needs) for text in texts]


IMPORTS = [
    *_top(
        "from __future__ import annotations",
        "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-",
        "__author__ = 'Ann Example'\n__version__ = '1.0'",
        "# type: ignore\n# ruff: noqa\n# pylint: disable=all",
        "import os, sys, math, time, random, json, re, copy",
        "import warnings\nwarnings.filterwarnings('ignore')",
        "import logging\nlogging.basicConfig(level=logging.INFO)\nlog = logging.getLogger(__name__)",
        "from typing import Optional, List, Dict, Tuple, Union, Any, Callable",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nowhere_to_be_found",
        "import typing as t\nimport collections\nfrom collections import defaultdict, OrderedDict",
        "from dataclasses import dataclass, field, asdict",
        "from functools import lru_cache, partial, cache, wraps\nfrom itertools import chain, product",
        "from abc import ABC, abstractmethod\nfrom enum import Enum",
        "from pathlib import Path\nHERE = Path(__file__).resolve().parent",
        "from contextlib import contextmanager, nullcontext",
        "import inspect, traceback, pprint, textwrap, string, datetime, operator, statistics",
        "import argparse, glob, shutil, pickle, gzip, csv, io, hashlib",
        "import unittest\nfrom unittest import mock",
        "import gc\ngc.collect()",
        "import platform\nprint(platform.platform(), platform.python_version())",
        "import multiprocessing as mp, threading, subprocess, concurrent.futures, asyncio",
        "import faulthandler\nfaulthandler.enable()",
        "import atexit\natexit.register(print, 'done')",
        "import sys\nsys.path.append('..')\nsys.path.insert(0, '.')",
        "import sys\nsys.setrecursionlimit(10_000)",
        "import os\nos.environ['TOKENIZERS_PARALLELISM'] = 'false'",
        "import os\nos.environ['KMP_DUPLICATE_LIB_OK'] = 'TRUE'\nos.environ['OMP_NUM_THREADS'] = '1'",
        "import os\nos.environ.setdefault('PYTORCH_ENABLE_MPS_FALLBACK', '1')",
        "import os\nos.environ['CUDA_VISIBLE_DEVICES'] = ''\nos.environ['CUDA_LAUNCH_BLOCKING'] = '1'",
        "import tempfile\nwith tempfile.TemporaryDirectory() as d:\n    open(d + '/x', 'w').close()",
        "import os\nos.makedirs('outputs', exist_ok=True)",
        "import os\nprint(os.getcwd(), os.path.expanduser('~'), os.cpu_count())",
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)",
        "import locale\nlocale.setlocale(locale.LC_ALL, '')",
        "import shutil\nshutil.which('nvidia-smi')",
        "import readline",
    ),
    *_top(
        "import numpy as np\nnp.random.seed(0)\nrng = np.random.default_rng(0)", needs=("numpy",)
    ),
    *_top(
        "import numpy as np\nnp.set_printoptions(precision=3, suppress=True)\nnp.seterr(all='ignore')",
        needs=("numpy",),
    ),
    *_top("import matplotlib.pyplot as plt", needs=("matplotlib",)),
    *_top("import matplotlib\nmatplotlib.use('Agg')", needs=("matplotlib",)),
    *_top(
        "import matplotlib.pyplot as plt\nplt.rcParams['figure.figsize'] = (8, 4)",
        needs=("matplotlib",),
    ),
    *_top("from matplotlib import pyplot as plt, font_manager", needs=("matplotlib",)),
    *_top("import pandas as pd", needs=("pandas",)),
    *_top("import scipy.special, scipy.stats", needs=("scipy",)),
    *_top("from einops import rearrange, repeat", needs=("einops",)),
    *_top("import seaborn as sns\nsns.set_theme()", needs=("seaborn", "matplotlib")),
    *_top("import sklearn", needs=("sklearn",)),
    *_top("import sympy", needs=("sympy",)),
    *_top("from PIL import Image", needs=("PIL",)),
    *_top("from tqdm import tqdm, trange", needs=("tqdm",)),
    *_top("from tqdm.auto import tqdm\nfor _ in tqdm(range(3)):\n    pass", needs=("tqdm",)),
    *_top("from rich import print\nfrom rich.console import Console", needs=("rich",)),
    *_top("import tiktoken", needs=("tiktoken",)),
    *_top("import pytest", needs=("pytest",)),
    *_top("import IPython.display", needs=("IPython",)),
    *_top("import yaml, psutil, requests", needs=("yaml", "psutil", "requests")),
    *_top("import numba\n@numba.njit\ndef _f(x):\n    return x + 1\n_f(1)", needs=("numba",)),
    *_top("from safetensors.torch import load_file", needs=("safetensors",)),
    *_top("import torchvision", needs=("torchvision",)),
    *_top("import torch.optim as optim\nfrom torch.utils.data import DataLoader, TensorDataset"),
    *_top("import torch.distributed as dist\nimport torch.multiprocessing"),
    *_top("from torch.nn.attention import SDPBackend, sdpa_kernel"),
    *_top("from torch.utils.checkpoint import checkpoint"),
    *_top("from torch.nn.utils.parametrizations import weight_norm"),
    *_top("from torch.nn import *\nfrom torch.nn.functional import *"),
    *_top("from torch.autograd import Variable, gradcheck\nimport torch.autograd.profiler"),
    *_top("from torch.profiler import profile, ProfilerActivity"),
    *_top("import torch._dynamo\ntorch._dynamo.config.suppress_errors = True"),
    *_top(
        "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\nTen = torch.Tensor"
    ),
]

SETTINGS = _below(
    "import torch\ntorch.manual_seed(1337)",
    "import torch, random\nrandom.seed(0)\ntorch.manual_seed(0)\ntorch.cuda.manual_seed_all(0)",
    "import torch\ntorch.set_default_device('cuda' if torch.cuda.is_available() else 'cpu')",
    "import torch\ntorch.set_default_device('cpu')",
    "import torch\ntorch.set_default_device(torch.device('cpu'))",
    "import torch\ntorch.set_default_dtype(torch.float32)",
    "import torch\ntorch.set_num_threads(1)",
    "import torch\ntorch.set_num_threads(2)\ntry:\n    torch.set_num_interop_threads(2)\n"
    "except RuntimeError:\n    pass",
    "import torch\ntorch.set_float32_matmul_precision('high')",
    "import torch\ntorch.set_printoptions(precision=3, sci_mode=False, linewidth=120)",
    "import torch\ntorch.backends.cudnn.deterministic = True\ntorch.backends.cudnn.benchmark = False",
    "import torch\ntorch.backends.cuda.matmul.allow_tf32 = True\ntorch.backends.cudnn.allow_tf32 = True",
    "import torch\ntorch.backends.cuda.enable_flash_sdp(True)\ntorch.backends.cuda.enable_math_sdp(True)",
    "import torch\ntorch.backends.mkldnn.enabled = True\ntorch.backends.mha.set_fastpath_enabled(True)",
    "import torch\ntorch.autograd.set_detect_anomaly(True)",
    "import torch\ntorch.autograd.set_detect_anomaly(False)",
    "import torch\ntorch.use_deterministic_algorithms(True, warn_only=True)",
    "import torch\ntorch.set_grad_enabled(True)",
    "import torch\ntorch.set_flush_denormal(True)",
    "import torch\ntorch.cuda.empty_cache()\ntorch.cuda.is_available() and torch.cuda.synchronize()",
    "import torch\nif torch.cuda.is_available():\n    torch.cuda.set_device(0)",
    "import torch\ndevice = torch.device('cuda' if torch.cuda.is_available() else 'mps' if "
    "torch.backends.mps.is_available() else 'cpu')\nprint(f'Using device: {device}')",
    "import torch\ndevice = torch.accelerator.current_accelerator().type if "
    "torch.accelerator.is_available() else 'cpu'",
    "import torch\ntorch.set_warn_always(False)\ntorch._logging.set_logs()",
    "import torch\nprint(torch.__version__, torch.version.cuda, torch.get_num_threads())",
    "import torch\nassert torch.__version__ >= '2', 'a newer torch, please'",
    "import torch\nx = torch.randn(2, 3, requires_grad=True)\nx.sum().backward()",
    "import torch\nwith torch.no_grad():\n    EYE = torch.eye(3)",
    "import torch\ntorch.serialization.add_safe_globals([set])",
    "import sys\nsys.stdout.flush()\nprint('loaded', file=sys.stderr)",
    "import time\nSTART = time.time()\ntime.sleep(0.01)",
    "import datetime\nprint(datetime.datetime.now())",
    "import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('ignore')",
    "import warnings\nwarnings.warn('this file is a draft')",
    "try:\n    import flash_attn_that_nobody_has as flash\nexcept ImportError:\n    flash = None",
    "try:\n    get_ipython().run_line_magic('matplotlib', 'inline')\nexcept NameError:\n    pass",
    "from dataclasses import dataclass\n@dataclass(frozen=True, slots=True, kw_only=True)\n"
    "class Settings:\n    width: int = 8",
    "from typing import NamedTuple\nclass Shapes(NamedTuple):\n    b: int = 1",
    "import enum\nclass Mode(enum.Enum):\n    TRAIN = 1\n    EVAL = 2",
    "import functools\n@functools.lru_cache(maxsize=None)\ndef helper(n):\n    return n * 2",
    "import functools\ndef timed(f):\n    @functools.wraps(f)\n    def run(*a, **k):\n"
    "        return f(*a, **k)\n    return run",
    "import contextlib\n@contextlib.contextmanager\ndef quiet():\n    yield",
    "from torch import nn\nclass Helper(nn.Module):\n    def forward(self, x):\n        return x",
    "import torch\nclass Double(torch.autograd.Function):\n    @staticmethod\n"
    "    def forward(ctx, x):\n        return 2 * x\n    @staticmethod\n"
    "    def backward(ctx, g):\n        return 2 * g",
    "import torch\n@torch.jit.script\ndef twice(x: torch.Tensor) -> torch.Tensor:\n    return 2 * x",
    "import torch\ntwice = torch.compile(lambda x: 2 * x, backend='eager')\ntwice(torch.ones(2))",
    "import torch\ntorch.vmap(torch.sum)(torch.ones(2, 3))",
    "import torch\nassert torch.allclose(torch.ones(2) + 1, torch.full((2,), 2.0))",
    "import torch\nfrom torch import nn\nassert nn.Linear(2, 3)(torch.ones(1, 2)).shape == (1, 3)",
    "import torch, io\ntorch.save({'a': torch.ones(2)}, io.BytesIO())",
    "import torch\ntorch.save(torch.ones(2), 'x.pt')\ntorch.load('x.pt')",
    "with open('notes.txt', 'w') as f:\n    f.write('draft')",
    "with open('/tmp/notes.txt', 'w') as f:\n    f.write('draft')",
    "import sys\nsys.stdout.reconfigure(encoding='utf-8')",
    "import builtins\nbuiltins.print = lambda *a, **k: None",
    "import torch\nclass Named(torch.Tensor):\n    pass",
    "import torch\ntorch.set_num_interop_threads(2)",
    "import os\nos.system('true')",
    "import torch\ntorch.set_default_tensor_type(torch.FloatTensor)",
    "import torch.multiprocessing as tmp\ntmp.set_sharing_strategy('file_system')",
    "import torch.multiprocessing as tmp\ntmp.set_start_method('spawn', force=True)",
    "import os\nos.chdir(os.path.dirname(os.path.abspath(__file__)))",
    "import getpass, socket, uuid\nprint(getpass.getuser(), socket.gethostname(), uuid.uuid4())",
    "import sys, os\nsys.stdout = open(os.devnull, 'w')",
    "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
    "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as pool:\n"
    "    list(pool.map(abs, [-1, 2]))",
    "import signal\nif hasattr(signal, 'SIGALRM'):\n    signal.alarm(0)",
    "import torch\ntorch.hub.set_dir('./hub')",
    "import sys\nsys.excepthook = sys.__excepthook__\nsys.dont_write_bytecode = True",
    "import torch\nfrom torch import nn\nclass Weight(nn.Parameter):\n    pass",
    "import sqlite3\nsqlite3.connect(':memory:').close()",
    "import urllib.request, http.client, ssl, smtplib",
    "import torch\ntorch.random.fork_rng()\ntorch.get_rng_state()\ntorch.initial_seed()",
    "import subprocess\ntry:\n    subprocess.run(['nvidia-smi'], capture_output=True)\n"
    "except OSError:\n    pass",
    "import argparse\nargs = argparse.ArgumentParser().parse_args()",
    "import logging\nlogging.FileHandler('run.log')",
    "import unittest\nclass TestMine(unittest.TestCase):\n    def test_it(self):\n"
    "        self.assertEqual(1 + 1, 2)",
    "def test_mine():\n    assert True",
    "DEBUG = False\nif DEBUG:\n    breakpoint()",
    "_cache = {}\nglobal_step = 0\ndef bump():\n    global global_step\n    global_step += 1",
    "__all__ = []",
    "exec('a_constant = 1')\neval('1 + 1')",
)

FORWARD = [
    Line("@torch.compile", "forward"),
    Line("@torch.compile(backend='eager')", "forward"),
    Line("@torch.compile(dynamic=True)", "forward"),
    Line("@torch.compiler.disable", "forward"),
    Line("@torch.jit.ignore", "forward"),
    Line("@torch.jit.export", "forward"),
    Line("@torch.autocast('cpu', enabled=False)", "forward"),
    Line("@torch.enable_grad()", "forward"),
    Line("@__import__('functools').wraps(nn.Module.forward, assigned=())", "forward"),
    Line("@__import__('typing').no_type_check", "forward"),
]

_MAIN = "if __name__ == '__main__':\n"
END = _end(
    _MAIN + "    import matplotlib.pyplot as plt\n    plt.plot([1, 2])\n    plt.show()",
    _MAIN + "    import argparse\n    args = argparse.ArgumentParser().parse_args()",
    _MAIN + "    import doctest\n    doctest.testmod()",
    _MAIN + "    import unittest\n    unittest.main()",
    _MAIN + "    import pytest\n    raise SystemExit(pytest.main([__file__]))",
    _MAIN + "    import subprocess\n    subprocess.run(['nvidia-smi'])",
    _MAIN + "    torch.manual_seed(0)\n    print(torch.randn(2, 3))",
    "def main():\n    print('nothing to see')\n\n\nmain()",
    "print('module loaded:', __name__, __file__)",
    "assert __name__ != '__main__' or True, 'self-test'",
    "# TODO: ask about the bias\n# %% a cell\n'''a long note\nin two lines'''",
    "import gc\ngc.collect()\ndel gc",
    "import time\n_t = time.perf_counter()\nprint(f'{time.perf_counter() - _t:.1f} s')",
)

LINES = [*IMPORTS, *SETTINGS, *FORWARD, *END]
