"""Starts a program in several processes that meet over the loopback, as torchrun does, and fails if one of them fails:
together.py PROCESSES PROGRAM ARGUMENT...; prints what rank 0 prints, and of the others what they said when they failed.
"""
import os
import socket
import subprocess
import sys
import tempfile
import time


def main():
    count, command = int(sys.argv[1]), sys.argv[2:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outputs = [tempfile.TemporaryFile() for _ in range(count)]
    processes = [
        subprocess.Popen(command, stdout=outputs[rank], stderr=subprocess.STDOUT,
                         env=os.environ | {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                                           "MASTER_PORT": str(port)})
        for rank in range(count)
    ]
    while any(process.poll() is None for process in processes):
        if any(process.poll() not in (None, 0) for process in processes):
            time.sleep(5)  # the others notice by themselves and say what they miss
            for process in processes:
                process.kill()
        time.sleep(0.05)
    codes = [process.wait() for process in processes]
    for rank, output in enumerate(outputs):
        if rank == 0 or codes[rank] != 0:
            output.seek(0)
            sys.stdout.write(f"== rank {rank} of {count}, exit status {codes[rank]}\n" + output.read().decode(errors="replace"))
    sys.exit(any(codes))


main()
