"""Types of the kernel in upsample.pyx, which checks its arguments itself."""

from typing import Any

def __getattr__(name: str) -> Any: ...
