from typing import Any

def __getattr__(name: str) -> Any: ...  # the native module; its functions are checked where they are called
