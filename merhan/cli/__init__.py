"""The command-line programs. Modules here import the rest of the package only when a command runs, so that `--help`
answers at once."""

import os


# Threads of PyTorch that wait for others sleep, in place of keeping their core busy: beside other work, two threads
# were slower than one (benchmarks/threads.py). Read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
