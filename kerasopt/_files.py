"""Files that are written whole or not at all."""

import os
import pathlib
import secrets


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> pathlib.Path:
    """Writes a file under a temporary name in the same folder, then renames it.

    Args:
        path: where to; the folder must exist. An older file is replaced.
        content: bytes, or text written as UTF-8.

    Raises:
        ValueError: the folder does not exist, or the path is a folder.
    """
    target = pathlib.Path(path)
    if not target.parent.is_dir() or target.is_dir():
        raise ValueError(
            "`path` must be a file in an existing folder. "
            f"Received: path={str(target)!r}. Create the folder, then name a file in it."
        )
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
