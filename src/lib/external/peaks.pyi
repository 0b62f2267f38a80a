"""Types of the kernels in peaks.pyx, which checks its arguments itself."""

from typing import Any

def __getattr__(name: str) -> Any: ...
