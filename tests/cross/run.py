"""Compiles the CPU kernels for an instruction set and runs their test, under emulation where the machine has to.

usage: run.py ROOT (native|avx2|vnni|tiles|aarch64)      exits with 77 where the compiler or the emulator is missing
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

FLAGS = ["-std=c++20", "-O2", "-ffp-contract=fast", "-fno-math-errno", "-Wall", "-Wextra", "-Wno-unused-function"]


def first(*names):
    return next((path for path in map(shutil.which, names) if path), None)


def main():
    root, target = pathlib.Path(sys.argv[1]), sys.argv[2]
    emulator = []
    if target == "aarch64":
        compiler = first("aarch64-linux-gnu-g++", *(f"aarch64-linux-gnu-g++-{v}" for v in range(20, 11, -1)))
        emulator = [first("qemu-aarch64-static", "qemu-aarch64")]
        flags = ["-static"]
    else:
        compiler = first("c++", "g++", "clang++")
        needs = {"avx2": ["avx2"], "vnni": ["avx2"], "tiles": ["avx512bw", "avx512_bf16"]}.get(target, [])
        here = pathlib.Path("/proc/cpuinfo").read_text().split()
        if missing := [name for name in needs if name not in here]:
            print(f"skipped: this processor has no {' and no '.join(missing)}")
            return 77
        flags = ["-mavx2", "-mfma", "-mf16c"] if needs else []
        if target == "vnni":
            flags.append("-DSTEER_WITH_VNNI")
        if target == "tiles":
            flags += ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-DSTEER_WITH_TILES", "-DSTEER_SLOW_TILES",
                      "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
    if not compiler or emulator == [None]:
        print(f"skipped: no compiler or emulator for {target}")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "kernels"
        subprocess.run([compiler, *FLAGS, *flags, f"-I{root / 'src'}", root / "tests/cross/kernels.cpp", "-o", program],
                       check=True)
        return subprocess.run([*emulator, program]).returncode


if __name__ == "__main__":
    sys.exit(main())
