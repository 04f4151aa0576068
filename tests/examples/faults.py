"""What a long run does when it is disturbed: faults.py MMLU_TRADEOFF DEMO_FOLDER

Interrupted, on a full disk, beside files that are not its own: nothing is lost, nothing is overwritten, nothing of
another run gets in, and the exit code says so.
"""
import json
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile

program, demo = sys.argv[1], pathlib.Path(sys.argv[2])
asked = [program, "--model", demo, "--questions", demo / "questions.jsonl", "--arms", "control,prompt", "--behaviours",
         "funny,concise", "--limit", "16", "--max-tokens", "64", "--batch", "4"]
faults = []


def check(ok, what):
    if not ok:
        faults.append(what)


def run(out, *more, room=None):
    """The exit code and all that was printed; with `room`, files cannot grow beyond so many bytes, as on a full disk."""
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    judge = [] if "--judge" in more else ["--judge", "none"]
    done = subprocess.run([*asked, "--out", out, *judge, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=250, preexec_fn=limit if room else None)
    return done.returncode, done.stdout


def interrupted(out, number, times):
    """The same, with the signal sent once answers are being given."""
    with subprocess.Popen([*asked, "--out", out, "--judge", "none"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        text = b""
        while (byte := process.stdout.read(1)):
            text += byte
            if text.endswith(b"answer "):
                process.send_signal(number)
            if times == 2 and text.endswith(b"once more to stop at once"):
                process.send_signal(number)
        return process.wait(timeout=250), text.decode()


def settings(file):
    try:
        return json.loads(file.read_text())
    except ValueError:
        return {}


def names(folder):
    return sorted(p.name for p in folder.iterdir())


with tempfile.TemporaryDirectory() as made:
    folder = pathlib.Path(made)
    code, text = run(folder / "whole")
    whole = (folder / "whole/results.jsonl").read_bytes()
    check(code == 0, f"the undisturbed run ends with {code}: {text[-400:]}")
    check(text.count("answer 64/64 (100%)") == 1, f"the last line of progress comes once: {text}")

    for number in (signal.SIGINT, signal.SIGTERM):
        out = folder / number.name
        code, text = interrupted(out, number, 1)
        check(code == 128 + number, f"{number.name}: exit {code}: {text[-400:]}")
        check("start again with the same settings" in text, f"{number.name}: does not say how to go on: {text[-400:]}")
        kept = (out / "journal.jsonl").read_bytes()
        code, text = run(out)
        check(code == 0 and (out / "results.jsonl").read_bytes() == whole, f"{number.name}: resumed, exit {code}: other results")
        check((out / "journal.jsonl").read_bytes().startswith(kept), f"{number.name}: answers were given again")
    code, text = interrupted(folder / "twice", signal.SIGINT, 2)
    check(code == -signal.SIGINT, f"a second Ctrl-C ends it at once, but exit {code}: {text[-400:]}")

    for name, content in (("notes", b"Dear diary,\nnothing.\n"), ("noise", bytes(range(256))),
                          ("crlf", (folder / "whole/journal.jsonl").read_bytes().replace(b"\n", b"\r\n"))):
        out = folder / name
        out.mkdir()
        (out / "journal.jsonl").write_bytes(content)
        code, text = run(out)
        check(code == 1 and "not touched" in text, f"{name} for a journal: exit {code}: {text[-400:]}")
        check((out / "journal.jsonl").read_bytes() == content, f"{name} for a journal is overwritten")

    # Another process of another run.
    out = folder / "ranks"
    out.mkdir()
    (out / "journal.rank1.jsonl").write_bytes((folder / "whole/journal.jsonl").read_bytes())
    code, text = run(out, "--seed", "12345")
    check(code == 1 and "journal.rank1.jsonl" in text and "seed" in text, f"another rank's seed: exit {code}: {text[-400:]}")
    check(not (out / "results.jsonl").exists(), "results of two runs are mixed")

    # No room for the settings, for the journal, for the report; then there is room again.
    out = folder / "full"
    for room in (300, 4000, len(whole) // 2):
        code, text = run(out, room=room)
        check(code == 1, f"a disk full at {room} bytes: exit {code}: {text[-400:]}")
        check(not [n for n in names(out) if ".part" in n or ".tmp" in n], f"left at {room} bytes: {names(out)}")
        if (out / "config.json").exists():
            check(settings(out / "config.json"), f"half of config.json is left at {room} bytes")
    code, text = run(out)
    check(code == 0 and (out / "results.jsonl").read_bytes() == whole, f"with room again: exit {code}: {text[-400:]}")
    (out / "config.json").write_text('{"model": "half')
    run(out)
    check(settings(out / "config.json").get("max_tokens") == 64, "half of config.json stays")

    out = folder / "secret"
    code, text = run(out, "--judge", "http", "--judge-model", "m", "--judge-url", "http://me:hunter2@127.0.0.1:1/v1")
    check(code == 1 and "hunter2" not in text, f"a password in the URL: exit {code}: {text[-400:]}")
    check(not out.exists() or all(b"hunter2" not in p.read_bytes() for p in out.iterdir()), "a password is kept")

for fault in faults:
    print(fault)
print(f"{len(faults)} faults")
sys.exit(bool(faults))
