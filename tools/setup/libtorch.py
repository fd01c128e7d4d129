#!/usr/bin/env python3
"""Finds or fetches libtorch and tells cargo where it is (.cargo/config.toml).

The first of these that there is, is used:
  1. the folder that the environment variable LIBTORCH names,
  2. the one that .cargo/config.toml names already,
  3. a PyTorch that python3 has installed,
  4. the copy in the user's cache folder, fetched from the Python package index with pip where it is absent.
It must be libtorch 2.11.0: tch refuses any other.

CUDA=1 asks for a libtorch with its CUDA half, CUDA=0 for one without; unset, the CUDA half of an existing
libtorch is linked where this machine has an NVIDIA driver.
"""

import base64
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "2.11.0"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CONFIG = ROOT / ".cargo" / "config.toml"
MARK = "# Written by `make setup`: where cargo finds libtorch. Delete this file to choose anew."
STAMP = "detect-stamp.json"

# What torch's wheel gives, beside its headers. The rest of torch/lib is Python's.
CPU_LIBRARIES = ["libc10.so", "libgomp.so.1", "libtorch_cpu.so"]
CUDA_LIBRARIES = ["libc10_cuda.so", "libcaffe2_nvrtc.so", "libtorch.so", "libtorch_cuda.so",
                  "libtorch_cuda_linalg.so", "libtorch_nvshmem.so"]
# The wheel's libtorch.so is a shell that needs libtorch_cuda.so to load. The CPU half has this linker script in its place.
CPU_LIBTORCH = "/* libtorch.so of the CPU half */\nINPUT(AS_NEEDED(libtorch_cpu.so))\n"
# What it takes on the way, in GB: download, and peak on the disk (wheels and unpacked files together).
COST = {"cpu": (0.55, 1.2), "cuda": (2.5, 7.0)}
# The platform tags that the pinned wheels carry; pip compares tags literally when it is told the platform.
PLATFORMS = ["manylinux2014_x86_64"] + ["manylinux_2_%d_x86_64" % n for n in (12, 17, 18, 25, 27, 28)]


class Refusal(Exception):
    """Something that the user has to know or do; its text says which."""


def say(text):
    print("setup: " + text, file=sys.stderr, flush=True)


def gigabytes(size):
    return "%.1f GB" % (size / 1e9)


# ---------------------------------------------------------------- what is there

def version_of(libtorch):
    """The version of the libtorch in this folder, from the header that the build uses; None if it has none."""
    header = libtorch / "include" / "torch" / "headeronly" / "version.h"
    if not header.is_file():  # where older versions keep it
        header = libtorch / "include" / "torch" / "csrc" / "api" / "include" / "torch" / "version.h"
    try:
        text = header.read_text()
    except OSError:
        return None
    parts = [re.search(r"#define TORCH_VERSION_%s (\d+)" % part, text) for part in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(part.group(1) for part in parts) if all(parts) else None


def has_cuda(libtorch):
    return (libtorch / "lib" / "libtorch_cuda.so").is_file()


def flaw(libtorch):
    """Why this folder does not serve as libtorch, or None."""
    if not libtorch.is_dir():
        return "is no folder"
    found = version_of(libtorch)
    if found is None:
        return "holds no libtorch (no include/torch/headeronly/version.h)"
    if found != VERSION:
        return "holds libtorch %s, and %s is needed" % (found, VERSION)
    for name in ("libtorch_cpu.so", "libtorch.so", "libc10.so"):
        if not (libtorch / "lib" / name).is_file():
            return "has no lib/" + name
    stamp = libtorch.parent / STAMP
    return damage(libtorch.parent, stamp) if stamp.is_file() else None


def damage(folder, stamp):
    """What has become of a fetched folder since its stamp was written, or None."""
    try:
        for name, size in json.loads(stamp.read_text())["files"].items():
            if os.stat(str(folder / name)).st_size != size:
                return "is damaged: %s has another size than it had" % name
    except (OSError, ValueError, KeyError) as error:
        return "is damaged: %s" % error
    return None


def installed_pytorch():
    """The folder of python3's PyTorch where it is the needed version and carries libtorch, else None."""
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    libtorch = Path(list(spec.submodule_search_locations)[0]).resolve()
    why = flaw(libtorch)
    if why is not None:
        say("the installed PyTorch does not serve: %s %s" % (libtorch, why))
        return None
    return libtorch


# ---------------------------------------------------------------- fetching

def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rule: a relative path there is to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "detect"


def wanted(name, cuda):
    """Whether a build needs this file of a wheel."""
    if name.endswith("/"):  # a folder
        return False
    if name.startswith("torch/include/"):
        return True
    if name.startswith("torch/lib/"):
        return name[len("torch/lib/"):] in CPU_LIBRARIES + (CUDA_LIBRARIES if cuda else [])
    if not re.match(r"nvidia/[^/]+/lib/[^/]+\.so[.\d]*$", name):
        return False
    return cuda or re.search(r"/lib(cudart|cupti)\.so", name) is not None


def unpack(wheel, folder, cuda):
    """Unpacks what a build needs of `wheel`, each file checked against the wheel's RECORD. Gives sizes by name."""
    sizes = {}
    with zipfile.ZipFile(str(wheel)) as archive:
        record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        listed = {}
        for line in archive.read(record).decode().splitlines():
            name, digest, size = line.rsplit(",", 2)
            listed[name] = (digest, size)
        for name in filter(lambda name: wanted(name, cuda), archive.namelist()):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            checksum = hashlib.sha256()
            with archive.open(name) as source, open(str(target), "xb") as sink:
                for block in iter(lambda: source.read(1 << 20), b""):
                    checksum.update(block)
                    sink.write(block)
                sizes[name] = sink.tell()
            digest = base64.urlsafe_b64encode(checksum.digest()).decode().rstrip("=")
            if listed.get(name) != ("sha256=" + digest, str(sizes[name])):
                raise Refusal("%s in %s is not what the wheel's RECORD says" % (name, wheel.name))
    return sizes


def download(variant, work):
    """Fetches the pinned wheels into `work`/wheels; pip checks each against its SHA-256."""
    if subprocess.call([sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL) != 0:
        raise Refusal("pip is missing (it fetches libtorch)\n"
                      "    cure: apt-get install -y python3-pip   (or: python3 -m ensurepip --user)")
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 28):
        raise Refusal("libtorch needs glibc 2.28 or newer; here is %s" % ((name + " " + version).strip() or "another C library"))
    wheels = work / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-cache-dir", "--no-input",
               "--disable-pip-version-check", "--dest", str(wheels), "--requirement", str(HERE / (variant + ".txt")),
               "--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11"]
    for tag in PLATFORMS:
        command += ["--platform", tag]
    # pip's own temporary files go to the same disk: /tmp may be small.
    status = subprocess.call(command, env=dict(os.environ, TMPDIR=str(work)), stdout=sys.stderr.fileno())
    if status != 0:
        raise Refusal("pip could not fetch libtorch (its own words stand above); nothing was changed.\n"
                      "    cure: see that this machine reaches a Python package index (`pip config list`), then run this again;\n"
                      "          or set LIBTORCH to the folder of a libtorch %s" % VERSION)
    return sorted(wheels.glob("*.whl"))


def fetched(variant):
    """The fetched libtorch of this variant; fetches it first where it is absent or damaged."""
    cache = cache_folder()
    folder = cache / ("libtorch-%s-%s" % (VERSION, variant))
    libtorch = folder / "torch"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = open(str(cache / (folder.name + ".lock")), "w")
    except OSError as error:
        raise Refusal("cannot write to %s: %s\n    cure: set XDG_CACHE_HOME to a folder that you may write to" % (cache, error))
    with lock:
        # The kernel lets go of the lock when its holder dies, so none is ever left behind.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another setup is fetching libtorch into %s; waiting for it" % cache)
            fcntl.flock(lock, fcntl.LOCK_EX)
        why = flaw(libtorch)
        if why is None and (folder / STAMP).is_file():
            return libtorch
        if folder.exists():
            say("%s %s; it is fetched again" % (libtorch, why or "has no stamp"))
        fetch(variant, folder)
    return libtorch


def fetch(variant, folder):
    """Makes `folder` beside and renames it, so that it is there whole or not at all. The lock is held."""
    # A setup that was killed left such a folder, perhaps with a pip that still writes there: a new name is safe from it.
    for left in folder.parent.glob(folder.name + ".part-*"):
        shutil.rmtree(str(left), ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=folder.name + ".part-", dir=str(folder.parent)))
    size, peak = COST[variant]
    free = shutil.disk_usage(str(work)).free
    try:
        if free < peak * 1e9:
            raise Refusal("fetching libtorch takes %.1f GB in %s for a while; it has %s free\n"
                          "    cure: make room, or set XDG_CACHE_HOME to a folder on another disk"
                          % (peak, folder.parent, gigabytes(free)))
        say("fetching libtorch %s (%s): %.1f GB, once for all clones, into %s" % (VERSION, variant, size, folder))
        sizes = {}
        wheels = download(variant, work)
        for number, wheel in enumerate(wheels, 1):
            say("unpacking and checking %d/%d: %s" % (number, len(wheels), wheel.name))
            sizes.update(unpack(wheel, work / "new", variant == "cuda"))
            wheel.unlink()
        if variant == "cpu":
            (work / "new" / "torch" / "lib" / "libtorch.so").write_text(CPU_LIBTORCH)
        # torch-sys reads this one; wheels do not have it.
        (work / "new" / "torch" / "build-version").write_text(VERSION + "\n")
        stamp = {"libtorch": VERSION, "variant": variant, "wheels": [w.name for w in wheels], "files": sizes}
        (work / "new" / STAMP).write_text(json.dumps(stamp))
        why = flaw(work / "new" / "torch")
        if why is not None:
            raise Refusal("what was fetched %s" % why)
        if folder.exists():
            folder.rename(work / "old")
        (work / "new").rename(folder)
        say("libtorch is there: %d files, %s" % (len(sizes), gigabytes(sum(sizes.values()))))
    finally:
        shutil.rmtree(str(work), ignore_errors=True)


# ---------------------------------------------------------------- telling cargo

def configured():
    """(what .cargo/config.toml says of LIBTORCH or None, whether CUDA is linked, whether the file is ours)"""
    try:
        text = CONFIG.read_text()
    except FileNotFoundError:
        return None, False, True
    found = re.search(r'^\s*LIBTORCH\s*=\s*(".*")', text, re.MULTILINE)
    libtorch = None
    if found:
        try:
            libtorch = Path(json.loads(found.group(1)))
        except ValueError:
            pass
    return libtorch, re.search(r'^\s*DETECT_LINK_CUDA\s*=\s*"1"', text, re.MULTILINE) is not None, text.startswith(MARK)


def choose():
    """(the folder of libtorch, whether its CUDA half is linked, where it is from)"""
    asked = {"1": True, "0": False, "": None}.get(os.environ.get("CUDA", ""))
    if asked is None and os.environ.get("CUDA", ""):
        raise Refusal("CUDA=%s: it is 1 or 0" % os.environ["CUDA"])

    def link(libtorch):
        driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
        return has_cuda(libtorch) and (driver if asked is None else asked)

    named = os.environ.get("LIBTORCH", "")
    if named:
        libtorch = Path(named).resolve()
        why = flaw(libtorch)
        if why is None and asked and not has_cuda(libtorch):
            why = "has no lib/libtorch_cuda.so, and CUDA=1 asks for it"
        if why is not None:
            raise Refusal("LIBTORCH: %s %s\n    cure: unset LIBTORCH, and a fitting one is found or fetched" % (libtorch, why))
        return libtorch, link(libtorch), "LIBTORCH"
    libtorch, linked, _ = configured()
    if libtorch is not None and asked in (None, linked):
        why = flaw(libtorch)
        if why is None:
            return libtorch, linked, "config"
        say("%s names %s, which %s" % (CONFIG, libtorch, why))
    libtorch = installed_pytorch()
    if libtorch is not None and (not asked or has_cuda(libtorch)):
        return libtorch, link(libtorch), "the installed PyTorch"
    if os.environ.get("LIBTORCH_USE_PYTORCH"):
        raise Refusal("LIBTORCH_USE_PYTORCH is set, but python3 has no fitting PyTorch %s\n"
                      "    cure: unset it, and libtorch is fetched" % VERSION)
    return fetched("cuda" if asked else "cpu"), bool(asked), "the cache folder"


def tell_cargo(libtorch, cuda):
    lines = ["[env]", "LIBTORCH = %s" % json.dumps(str(libtorch), ensure_ascii=False)]
    if cuda:
        lines.append('DETECT_LINK_CUDA = "1"')
    before, linked, ours = configured()
    if (before, linked) == (libtorch, cuda):
        return
    if not ours:
        raise Refusal("%s is your own, so it is left alone\n    cure: write there\n%s"
                      % (CONFIG, "".join("        %s\n" % line for line in lines)))
    CONFIG.parent.mkdir(exist_ok=True)
    temporary = CONFIG.with_name("config.toml.%d.part" % os.getpid())
    temporary.write_text("\n".join([MARK] + lines) + "\n")
    temporary.replace(CONFIG)


def main():
    try:
        libtorch, cuda, origin = choose()
        tell_cargo(libtorch, cuda)
        if origin != "config":
            say("libtorch %s%s: %s (%s)" % (VERSION, " with CUDA" if cuda else "", libtorch, origin))
    except Refusal as refusal:
        print("error: %s" % refusal, file=sys.stderr)
        return 2
    except OSError as error:
        print("error: %s" % error, file=sys.stderr)
        return 5
    except KeyboardInterrupt:
        print("\nstopped; nothing half-made was left", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
