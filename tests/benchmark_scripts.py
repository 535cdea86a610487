"""The benchmark's scripts as modules, for tests of them."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).parent / "benchmarks"


def script(name: str) -> ModuleType:
    """A script by its bare name, by which scripts import each other."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    return importlib.import_module(name)
