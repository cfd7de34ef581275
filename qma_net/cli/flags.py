"""What several commands' flags share."""


def listed(names: str) -> list[str]:
    """``a,b`` as ``["a", "b"]``."""
    return [name for name in names.split(",") if name]
