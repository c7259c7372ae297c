"""How XLA compiles for tests: most of their time is compiling, half of that LLVM's optimisation and the newer emitters.

Nothing that is checked depends on either. One bin/auralise of test_cli.py, and the tests that .ci/run has compiled for
another processor, have the emitters that users have; jaxlib from 0.11 on has no others.
"""

import os
from importlib import metadata

QUICK = "--xla_backend_optimization_level=0"
if metadata.version("jaxlib").startswith("0.10.") and "xla_cpu_max_isa" not in os.environ.get("XLA_FLAGS", ""):
    QUICK += " --xla_cpu_use_fusion_emitters=false"
