"""Run notebooks the way another processor would: with other kernels of oneDNN and ATen, one thread each.

    python tools/portable.py                        all lessons and solutions under setting A
    python tools/portable.py 09 11                  lessons 09 and 11 and their solutions under A and B
    python tools/portable.py --settings B           all under B, which is three to four times slower

Kernels that round otherwise must not change what a notebook asserts. Nothing is stored.
"""

import argparse
import os
import re
import subprocess
import sys

from execute_notebooks import chosen
from notebook_rules import ROOT

# For each setting the variables that torch reads, and what ATen and oneDNN must then say of themselves.
SETTINGS = {
    "A": ({"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}, ("AVX2", "Intel AVX2")),
    "B": ({"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}, ("DEFAULT", "Intel SSE4.1")),
}
CELL_TIMEOUT = 1200     # seconds
KERNELS_IN_USE = """
import torch

torch.nn.functional.conv2d(torch.ones(2, 64, 32, 32), torch.ones(64, 64, 3, 3))      # oneDNN's, being large enough
print("aten:" + torch.backends.cpu.get_cpu_capability())
"""


def kernels_in_use(variables):
    """What ATen and oneDNN say they use, as a tuple; None for what says nothing."""
    environment = {**os.environ, **variables, "ONEDNN_VERBOSE": "1"}
    said = subprocess.run([sys.executable, "-c", KERNELS_IN_USE], env=environment, capture_output=True, text=True)
    found = [re.search(pattern, said.stdout) for pattern in ("aten:(.+)", "cpu,isa:(.+)")]
    return tuple(match and match[1] for match in found)


def run(setting, paths):
    """Execute the notebooks under a setting; returns whether all went well."""
    variables, expected = SETTINGS[setting]
    found = kernels_in_use(variables)
    print(f"Setting {setting}: ATen uses {found[0]}, oneDNN uses {found[1]}.", flush=True)
    if found != expected:
        print(f"This machine does not follow the setting, which asks for {expected[0]} and {expected[1]}: "
              "x86 kernels, and those that the processor has. Nothing was run.", file=sys.stderr)
        return False
    command = [sys.executable, "-m", "pytest", "-n", "auto", f"--nbval-cell-timeout={CELL_TIMEOUT}", *map(str, paths)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", help="numbers of lessons; none: all")
    parser.add_argument("--settings", choices=["A", "B", "AB"], help="default: A for all lessons, AB for named ones")
    arguments = parser.parse_args()
    settings = arguments.settings or ("AB" if arguments.lessons else "A")
    paths = chosen(arguments.lessons)
    failed = [setting for setting in settings if not run(setting, paths)]
    sys.exit(f"Not portable, or not shown to be: setting {', '.join(failed)}." if failed else 0)


if __name__ == "__main__":
    main()
