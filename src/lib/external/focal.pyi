"""Types of the kernels in focal.pyx, which checks its arguments itself."""

from typing import Any

def __getattr__(name: str) -> Any: ...
