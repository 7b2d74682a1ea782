"""Files that are written whole or not at all."""

import contextlib
import errno
import gzip
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES)


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> pathlib.Path:
    """Writes a file under a temporary name in the same folder, then renames it.

    Args:
        path: where to; the folder must exist. An older file is replaced.
        content: bytes, or text written as UTF-8.

    Raises:
        OSError: there is no room, or no permission.
        ValueError: the folder does not exist, or the path is a folder.
    """
    target = check_target(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(target)
    except OSError as error:
        raise OSError(
            error.errno,
            f"The folder must have room and permission for a file of {len(data):,} bytes. "
            f"Received: path={str(target)!r}, {error.strerror}. Make room, or name another folder",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to show
            temporary.unlink(missing_ok=True)
    return target


def check_target(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns a path as such after checking that a file can be written there.

    Raises:
        PermissionError: the folder may not be written to.
        ValueError: the folder does not exist, or the path is a folder.
    """
    target = pathlib.Path(path)
    if not target.parent.is_dir() or target.is_dir():
        raise ValueError(
            "`path` must be a file in an existing folder. "
            f"Received: path={str(target)!r}. Create the folder, then name a file in it."
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(
            errno.EACCES,
            "`path` must be in a folder that may be written to. "
            f"Received: path={str(target)!r}. Change its permissions, or name another folder",
        )
    return target


def check_folder_target(path: str | os.PathLike[str], mark: str) -> pathlib.Path:
    """Returns a path as such after checking that a folder can be put there.

    Args:
        path: where to; a folder that is there already must be one of the same kind, or empty.
        mark: the file by which a folder of this kind is known.

    Raises:
        PermissionError: the folder above may not be written to.
        ValueError: the folder above does not exist, or something else is at the path.
    """
    target = pathlib.Path(path)
    if target.is_dir():
        if any(target.iterdir()) and not (target / mark).is_file():
            raise ValueError(
                f"`path` must be new, empty, or an older folder with a {mark}, which is replaced. "
                f"Received: path={str(target)!r}, which holds something else. Name another folder."
            )
        check_target(target / mark)
    elif target.exists():
        raise ValueError(
            f"`path` must be a folder. Received: path={str(target)!r}, which is a file. "
            "Name another folder."
        )
    return check_target(target.parent / f"{target.name}.new").with_name(target.name)


def replace_folder(made: pathlib.Path, target: pathlib.Path) -> None:
    """Puts a folder that is ready, on the same disk, where an older one may be."""
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    older = target.exists()
    if older:
        target.rename(aside)
    try:
        made.rename(target)
    except OSError:
        if older:
            aside.rename(target)
        raise
    if older:
        shutil.rmtree(aside)


@contextlib.contextmanager
def file_errors(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Raises OSError for what TensorFlow raises in types of its own when it cannot write.

    Args:
        folder: where it writes, for the error.

    Raises:
        OSError: there is no room, or no permission.
    """
    try:
        yield
    except Exception as error:
        # Its text is the path and what the system says: `/tmp/a; No space left on device`.
        said = [code for code in _NO_ROOM if f"; {os.strerror(code)}" in str(error)]
        if isinstance(error, OSError) or not said:
            raise
        raise OSError(
            said[0],
            "The folder must have room and permission for the files of the model. "
            f"Received: {os.fspath(folder)!r}, {os.strerror(said[0])}. Make room, or name another "
            "folder (TMPDIR names that for temporary files)",
        ) from error


def gzip_size(content: bytes) -> int:
    """Returns the bytes after gzip, at the level that the program has when nobody names one.

    The highest level takes up to twenty times as long, for a few percent.
    """
    return len(gzip.compress(content, compresslevel=6, mtime=0))
