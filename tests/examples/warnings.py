"""What a person should know of a steering reaches them: programs are given an SAE of another model, and each
warning must come once.

usage: warnings.py PROGRAMS_FOLDER SOURCE_FOLDER
"""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

programs, source = (pathlib.Path(p).resolve() for p in sys.argv[1:])
demo = source / "examples/data/demo"


def of_another_model(path):
    """The demo's SAE, whose file says that it was trained on another model."""
    data = (demo / "sae.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    config = json.loads(header["__metadata__"]["cfg"])
    config["metadata"]["model_name"] = "other-7b"
    header["__metadata__"]["cfg"] = json.dumps(config)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length:])


def with_a_name(folder):
    """The demo's model, whose configuration says what it is called."""
    folder.mkdir()
    for file in demo.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((demo / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": "steer-demo"}))
    return folder


failed = 0
with tempfile.TemporaryDirectory() as folder:
    sae = pathlib.Path(folder) / "sae.safetensors"
    of_another_model(sae)
    model = with_a_name(pathlib.Path(folder) / "model")
    runs = {
        "three_features": [model, sae, "137", "320", "340", "1.5", "What is a transistor?"],
        "live_engine": [model, sae],
        "sweep": ["--model", model, "--sae", sae, "--every", "60", "--strengths", "1", "--max-tokens", "8"],
    }
    for name, arguments in runs.items():
        done = subprocess.run([programs / name, *map(str, arguments)], cwd=source, capture_output=True, text=True,
                              timeout=280)
        said = [line for line in (done.stderr + done.stdout).splitlines() if "other-7b" in line]
        if done.returncode != 0 or not said or len(said) != len(set(said)):
            failed += 1
            print(f"{name}: ended with {done.returncode}, said {len(said)} warnings, {len(set(said))} of them different\n"
                  f"{done.stderr}")
print(f"warnings: {len(runs) - failed} programs passed, {failed} failed")
sys.exit(failed != 0)
