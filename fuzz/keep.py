#!/usr/bin/env python3
"""Keeps of all inputs that fuzzing found the few that reach most: keep.py BINARY FOUND CORPUS

Asks the target which code each input reaches, then takes the input that reaches the most that none
before it did, again and again, up to 100 inputs and 200 KiB. Those written by hand, whose names are
words, stay whatever they reach.
"""

import hashlib
import os
import subprocess
import sys
import tempfile

FILES_MAX, BYTES_MAX, INPUT_MAX = 100, 200 << 10, 16 << 10


def reached(binary, folders):
    """The edges that each input reaches, by path."""
    with tempfile.TemporaryDirectory() as work:
        control, out = os.path.join(work, "control"), os.path.join(work, "out")
        os.mkdir(out)
        flags = ["-merge=1", f"-merge_control_file={control}", "-use_counters=0"]
        command = [binary, *flags, out, *folders]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        with open(control) as lines:
            lines = lines.read().splitlines()
    count = int(lines[0])
    paths, edges = lines[2 : 2 + count], {}
    for line in lines[2 + count :]:
        kind, *numbers = line.split()
        if kind == "FT":
            edges[paths[int(numbers[0])]] = set(numbers[1:])
    return edges


def is_found(path):
    """Whether a fuzzer named it: by its hash."""
    name = os.path.basename(path)
    return len(name) == 40 and set(name) <= set("0123456789abcdef")


def main(binary, found, corpus):
    edges = reached(binary, [corpus, found])
    edges = {path: all for path, all in edges.items() if os.path.getsize(path) <= INPUT_MAX}
    kept = sorted(path for path in edges if not is_found(path) and path.startswith(corpus))
    known = set().union(*(edges[path] for path in kept)) if kept else set()
    left = BYTES_MAX - sum(os.path.getsize(path) for path in kept)
    rest = {path for path in edges if is_found(path)}
    while rest and len(kept) < FILES_MAX:
        # Of those that reach as much the smallest; then by name, so that the choice is the same.
        gain = lambda path: (len(edges[path] - known), -os.path.getsize(path), path)
        best = max(rest, key=gain)
        rest.discard(best)
        if not edges[best] - known:
            break
        if os.path.getsize(best) <= left:
            kept.append(best)
            known |= edges[best]
            left -= os.path.getsize(best)
    inputs = {}
    for path in kept:
        with open(path, "rb") as file:
            content = file.read()
        name = hashlib.sha1(content).hexdigest() if is_found(path) else os.path.basename(path)
        inputs[name] = content
    for name in os.listdir(corpus):
        os.remove(os.path.join(corpus, name))
    for name, content in inputs.items():
        with open(os.path.join(corpus, name), "wb") as file:
            file.write(content)
    all_edges = set().union(*edges.values())
    print(f"{len(inputs)} of {len(edges)} inputs, {len(known)} of {len(all_edges)} edges")


if __name__ == "__main__":
    main(*sys.argv[1:])
