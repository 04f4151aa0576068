"""Real clients against steer_serve: run.py --server PROGRAM --score PROGRAM --source TREE --work FOLDER

Makes a virtual environment in FOLDER (kept for the next run); exits with 77 where the package index is out of reach.
"""
import argparse
import hashlib
import pathlib
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent


def environment(work):
    """The environment's Python, or None where its packages cannot be had."""
    python = work / "venv/bin/python"
    stamp = work / "installed"
    wanted = hashlib.sha256((HERE / "requirements.txt").read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    work.mkdir(parents=True, exist_ok=True)
    venv.create(work / "venv", with_pip=True, clear=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / "requirements.txt"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"skipped: the clients could not be installed: {done.stderr.strip().splitlines()[-1:]}")
        return None
    stamp.write_text(wanted)
    return python


def main():
    parser = argparse.ArgumentParser()
    for name in ("server", "score", "source", "work"):
        parser.add_argument(f"--{name}", required=True, type=pathlib.Path)
    parser.add_argument("--python", type=pathlib.Path, help="an environment that has the clients already")
    options = parser.parse_args()
    python = options.python or environment(options.work)
    if python is None:
        sys.exit(77)
    options.work.mkdir(parents=True, exist_ok=True)
    sys.exit(subprocess.run([python, HERE / "cases.py", options.server, options.score, options.source,
                             options.work]).returncode)


main()
