#!/usr/bin/env python3
"""Reads every #include line under src/ and fails where one points right.

The rooms, left to right; a room may include itself and the rooms of the columns left of its own:

    base < pulse, config, safetensors, model, engine_api, snapshot, kernels < run, launch, watch, checkpoint, decode
         < recover, doctor, chat, trainer < supervise < commands < main

Apart from the rows: `engine` and `writer` (programs of their own, linked by nobody) and the torch headers, which
only `engine` may see.
"""

import pathlib
import re
import sys

COLUMNS = [
    ["base"],
    ["pulse", "config", "safetensors", "model", "engine_api", "snapshot", "kernels"],
    ["run", "launch", "watch", "checkpoint", "decode"],
    ["recover", "doctor", "chat", "trainer"],
    ["supervise"],
    ["commands"],
    ["main.cc"],
]
APART = {
    "engine": {"base", "safetensors", "model", "engine_api"},
    "writer": {"base", "pulse", "safetensors", "engine_api", "snapshot", "run", "launch", "checkpoint"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
TORCH = re.compile(r"^(torch|ATen|c10)/")


def allowed(room):
    if room in APART:
        return APART[room] | {room}
    for column, rooms in enumerate(COLUMNS):
        if room in rooms:
            return {left for lefts in COLUMNS[:column] for left in lefts} | {room}
    return None


def violations(source):
    """One line for each include below `source` that points right."""
    rooms = {room for column in COLUMNS for room in column} | set(APART)
    for path in sorted(source.rglob("*")):
        if path.suffix not in {".h", ".cc", ".c"} or path.name in {"pch.h", "pch.cc"}:
            continue
        room = path.relative_to(source).parts[0]
        may = allowed(room)
        if may is None:
            yield f"{path}: the room {room!r} has no place in the layers"
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            name = match.group(2)
            if TORCH.match(name) and room != "engine":
                yield f"{path}:{number}: only src/engine may include torch headers: {name}"
            first = name.split("/")[0]
            if match.group(1) == '"' and first in rooms and first not in may:
                yield f"{path}:{number}: {room} must not include {name}"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2] / "src")
    found = list(violations(root))
    print("\n".join(found) if found else f"layers: every include under {root.name}/ points left")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
