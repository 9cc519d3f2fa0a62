"""Install llama-cpp-python, which PyPI ships as source only, and keep the compiled wheel for the next environment.

Run by `make setup` with the Python of the new environment; standard library only. A build of the pinned version
that is already installed is kept, whoever made it. The wheel is compiled for this CPU, so the cache is
keyed by version, platform, CPU, compiler variables and CMake arguments.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NamedTuple, NoReturn

NAME = "llama-cpp-python"
CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
TICK_S = 10.0
CPU_SECONDS = 210
"""Processor time of one build, measured on an AMD EPYC; divided by the processors it says about how long it takes."""

# llama-common, the largest part of llama.cpp, serves its own command line tools; Python loads libllama alone. The
# project sets the option with FORCE, so only a file that CMake includes inside the project can turn it off.
NO_COMMON = 'set(LLAMA_BUILD_COMMON OFF CACHE BOOL "" FORCE)\n'
FLAGS = "-DLLAVA_BUILD=OFF"
BUILD_VARIABLES = ("CMAKE_ARGS", "CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CUDAFLAGS")
LOADS = "import llama_cpp; llama_cpp.llama_backend_init(); print(llama_cpp.__version__)"


class Build(NamedTuple):
    """How one attempt to compile ended."""

    wheel: Path | None
    seconds: float


def say(text: str) -> None:
    """Progress goes to stderr, as everywhere in this project."""
    print(f"setup: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    """End with one line that names the remedy."""
    say(text)
    raise SystemExit(1)


def pinned_version() -> str:
    """The version that constraints.txt asks for."""
    match = re.search(rf"^{NAME}==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        fail(f"{CONSTRAINTS.name} has no line {NAME}==VERSION; restore it from version control")
    return match[1]


def installed_version() -> str:
    """The version in this environment, empty if there is none."""
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return ""


def cache_root() -> Path:
    """The user's cache folder for this project, as platformdirs would name it."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "preflexor"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "preflexor" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "preflexor"


def cpu_identity() -> str:
    """Model and instruction sets of the processor; the compiler is told to use all it has."""
    if sys.platform == "darwin":
        return subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        ).stdout.strip()
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    wanted = ("vendor_id", "model name", "flags", "Features", "CPU implementer", "CPU part")
    fields = dict(line.split(":", 1) for line in cpuinfo.splitlines() if line.partition("\t")[0].strip() in wanted)
    return "\n".join(f"{key.strip()}={' '.join(sorted(value.split()))}" for key, value in sorted(fields.items()))


def cache_slot(version: str) -> Path:
    """Folder of the wheel that fits this machine and these build variables."""
    parts = [platform.machine(), "".join(platform.libc_ver()), cpu_identity(), NO_COMMON, FLAGS]
    parts += [f"{name}={os.environ.get(name, '')}" for name in BUILD_VARIABLES]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return cache_root() / "wheels" / f"{NAME}-{version}-{sysconfig.get_platform()}-{digest}"


def need_compiler(variable: str, names: tuple[str, ...], remedy: str) -> None:
    """End with the remedy unless a compiler runs. On macOS the program is there but fails without the tools."""
    chosen = os.environ.get(variable)
    commands = [shlex.split(chosen)] if chosen else [[name] for name in names]
    for command in commands:
        program = shutil.which(command[0])
        if program and subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0:
            return
    what = f"{variable}={chosen} does not run" if chosen else f"none of {', '.join(names)} runs"
    fail(f"{NAME} is compiled from source and {what}; {remedy}")


def check_compilers() -> None:
    """A C and a C++ compiler are needed. CMake is not: pip fetches one for the build where none is on the PATH."""
    if sys.platform == "darwin":
        remedy = "install the tools with: xcode-select --install"
    else:
        remedy = "install a compiler, on Debian and Ubuntu with: sudo apt install build-essential"
    need_compiler("CC", ("cc", "gcc", "clang"), remedy)
    need_compiler("CXX", ("c++", "g++", "clang++"), remedy)


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def clock(seconds: float) -> str:
    """Minutes and seconds, as in 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def share_done(log: Path) -> float:
    """Share of the compile steps that are done by the build's own count; 0 before the first."""
    text = log.read_text(encoding="utf-8", errors="replace")
    for done, total, percent in reversed(re.findall(r"^\s*\[(?:(\d+)/(\d+)|\s*(\d+)%)\]", text, re.MULTILINE)):
        return int(percent) / 100 if percent else int(done) / int(total)
    return 0.0


def standing(elapsed_s: float, done: float) -> str:
    """How far the build is, and how long it goes on at this pace."""
    if done == 0:
        return f"fetching the source, {clock(elapsed_s)} so far"
    left = f", about {clock(elapsed_s * (1 - done) / done)} left" if done >= 0.05 else ""
    return f"compiling, {done:.0%} of the steps, {clock(elapsed_s)} so far{left}"


def compile_wheel(version: str, folder: Path, log: Path) -> Build:
    """Let pip build the wheel into `folder`, saying every few seconds how far it is."""
    include = folder / "no_common.cmake"
    include.write_text(NO_COMMON, encoding="utf-8")
    ours = shlex.join([f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={include}", FLAGS])
    env = {"CMAKE_BUILD_PARALLEL_LEVEL": str(processors()), **os.environ}
    env["CMAKE_ARGS"] = f"{ours} {env.get('CMAKE_ARGS', '')}".strip()
    # pip's own cache of built wheels does not look at CMAKE_ARGS, so it must not answer.
    command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-cache-dir", "--no-deps"]
    command += [f"--no-binary={NAME}", f"--wheel-dir={folder}", f"{NAME}=={version}"]
    started = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env)
        try:
            while True:
                try:
                    code = process.wait(timeout=TICK_S)
                    break
                except subprocess.TimeoutExpired:
                    say(f"llama.cpp: {standing(time.monotonic() - started, share_done(log))}")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    wheels = sorted(folder.glob("*.whl"))
    return Build(wheels[0] if code == 0 and wheels else None, time.monotonic() - started)


def build_into(slot: Path, version: str) -> Path:
    """Compile and put the wheel into the cache under its final name in one step."""
    check_compilers()
    slot.mkdir(parents=True, exist_ok=True)
    minutes = max(1, round(CPU_SECONDS / processors() / 60))
    say(f"{NAME} {version} comes as source; compiling it takes about {minutes} min on {processors()} processor(s)")
    say("this happens once: the wheel is kept for this version and this CPU")
    log = slot / "build.log"
    with tempfile.TemporaryDirectory(dir=slot, prefix=".build-") as folder:
        built = compile_wheel(version, Path(folder), log)
        if built.wheel is None:
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:]
            print("\n".join(tail), file=sys.stderr)
            fail(f"{NAME} {version} did not compile after {clock(built.seconds)}; the whole output is in {log}")
        wheel = slot / built.wheel.name
        built.wheel.replace(wheel)
    log.unlink()
    say(f"compiled in {clock(built.seconds)}, kept in {slot}")
    return wheel


def install(wheel: Path) -> None:
    """Put the wheel and what it needs into this environment."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS)]
    code = subprocess.run([*pip, str(wheel)], check=False).returncode
    if code != 0:
        fail(f"pip could not install {wheel.name}; see its message above")


def whole(wheel: Path) -> bool:
    """Whether the file is what was put there."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def loads() -> bool:
    """Whether the library starts here. A wheel from another CPU dies with an illegal instruction."""
    return subprocess.run([sys.executable, "-c", LOADS], capture_output=True, check=False).returncode == 0


def main() -> None:
    """Make sure that this environment has the pinned version and that it starts."""
    version = pinned_version()
    if installed_version() == version:
        say(f"{NAME} {version} is installed")
        return
    slot = cache_slot(version)
    cached = sorted(slot.glob("*.whl"))
    if cached and whole(cached[0]):
        say(f"{NAME} {version}: using the wheel compiled before, from {slot}")
        install(cached[0])
        if loads():
            return
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", NAME], check=False)
    if cached:
        say("the wheel compiled before is damaged or does not start on this machine; compiling it again")
        cached[0].unlink()
    install(build_into(slot, version))
    if not loads():
        fail(f"{NAME} {version} was compiled but does not start; try it by hand: {sys.executable} -c '{LOADS}'")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("stopped; nothing was installed, run the same command again to go on")
        raise SystemExit(1) from None
