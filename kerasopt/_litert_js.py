"""LiteRT.js in the package: where it is, and how it gets there from npm, once."""

import base64
import errno
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

VERSION = "2.5.3"
FOLDER = pathlib.Path(__file__).parent / "serving" / "litert_js"

# What npm must hand over, to the bit: the page runs it.
_PACKAGES = {
    "@litertjs/core": (
        "PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ=="
    ),
    "@litertjs/wasm-utils": (
        "4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ=="
    ),
}
# Builds for browsers with threads, without them, and without relaxed SIMD (Safari).
_BUILDS = ("litert_wasm_threaded_internal", "litert_wasm_internal", "litert_wasm_compat_internal")
_MEMBERS = {
    "core.js": ("@litertjs/core", "package/dist/index.js"),
    "wasm-utils.js": ("@litertjs/wasm-utils", "package/dist/index.js"),
    **{
        f"{build}.{kind}": ("@litertjs/core", f"package/wasm/{build}.{kind}")
        for build in _BUILDS
        for kind in ("js", "wasm")
    },
}
FILES = tuple(_MEMBERS)
_TIME_LIMIT = 600.0


def is_installed() -> bool:
    """Tells whether this version of LiteRT.js is in the package, whole."""
    stamp = FOLDER / "VERSION"
    return stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == VERSION


def check_installed() -> None:
    """Raises RuntimeError, with the command to run, unless LiteRT.js is in the package."""
    if not is_installed():
        raise RuntimeError(
            f"The page needs LiteRT.js {VERSION} inside the package. Received: none in "
            f"{str(FOLDER)!r}. Run: kerasopt serve --install (once; it needs npm and the network), "
            "or `make web` in a checkout."
        )


def install() -> pathlib.Path:
    """Fetches LiteRT.js with npm, checks every byte, and puts it into the package.

    Raises:
        PermissionError: the package may not be written to.
        RuntimeError: npm is missing, fails, or hands over something else.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            "`npm` must be on the PATH to fetch LiteRT.js. Received: none. Install Node.js."
        )
    if not os.access(FOLDER.parent, os.W_OK | os.X_OK):
        raise PermissionError(
            errno.EACCES,
            "The package must be in a folder that may be written to. "
            f"Received: {str(FOLDER.parent)!r}. Install as its owner, or a wheel of `make wheel`",
        )
    with tempfile.TemporaryDirectory(dir=FOLDER.parent, prefix=".litert_js.") as temporary:
        scratch = pathlib.Path(temporary)
        archives = {name: _pack(npm, name, scratch) for name in _PACKAGES}
        made = scratch / "made"
        made.mkdir()
        for target, (package, member) in _MEMBERS.items():
            (made / target).write_bytes(_member(archives[package], member))
        _link(made / "core.js")
        (made / "VERSION").write_text(f"{VERSION}\n", encoding="utf-8")
        if FOLDER.exists():
            FOLDER.rename(scratch / "old")
        made.rename(FOLDER)
    return FOLDER


def _pack(npm: str, name: str, folder: pathlib.Path) -> pathlib.Path:
    """Has npm fetch the archive of a package, whatever registry it is set to."""
    command = [npm, "pack", f"{name}@{VERSION}", "--ignore-scripts", "--silent"]
    done = subprocess.run(
        [*command, "--pack-destination", str(folder)],
        capture_output=True,
        text=True,
        timeout=_TIME_LIMIT,
        check=False,
        cwd=folder,  # a package.json above must not count
    )
    archive = folder / f"{name.lstrip('@').replace('/', '-')}-{VERSION}.tgz"
    if done.returncode or not archive.is_file():
        raise RuntimeError(
            f"npm must fetch {name}@{VERSION}. Received: exit code {done.returncode}, "
            f"{done.stderr.strip()[-400:]!r}. Check the network and npm's registry."
        )
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != _PACKAGES[name]:
        raise RuntimeError(
            f"{name}@{VERSION} must have the SHA-512 {_PACKAGES[name]}. Received: {found}. "
            "Nothing was installed; ask whoever runs the registry."
        )
    return archive


def _member(archive: pathlib.Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        member = tar.extractfile(name)
        if member is None:
            raise RuntimeError(f"{archive.name} must hold the file {name}. Received: no file.")
        return member.read()


def _link(core: pathlib.Path) -> None:
    """Names the second package as the server does: a browser knows no node_modules."""
    text = core.read_text(encoding="utf-8")
    linked = text.replace('from "@litertjs/wasm-utils"', 'from "./wasm-utils.js"')
    if linked.count('from "./wasm-utils.js"') != 1:
        raise RuntimeError(
            "LiteRT.js must import @litertjs/wasm-utils once. Received: another number of times."
        )
    core.write_text(linked, encoding="utf-8")


if __name__ == "__main__":
    sys.stdout.write(f"{install()}\n")
