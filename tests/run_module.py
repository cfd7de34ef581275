"""``python -m MODULE`` as a file, which torchrun runs in forks of its own process."""

import runpy
import sys

del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
