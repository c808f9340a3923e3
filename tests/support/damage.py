"""Damaged journals: bits flipped, blocks zeroed, lines of others, lines lost, copied and moved; by a seed."""

from __future__ import annotations

import random
from pathlib import Path

from orchestrator.study.study import SweepStudy
from tests.support import made_up

STRANGERS = (
    b"2026-11-26 15:21:59 INFO something else writes its log here",
    b"",
    b"{}",
    b"[1, 2]",
    b"null",
    b'{"op_code":77,"worker_id":"a-1"}',
    b'{"op_code":8,"worker_id":"a-1","trial_id":99,"user_attr":{"attempt":1}}',
    b'{"op_code":8,"worker_id":"a-1","trial_id":0,"user_attr":{"reason":5}}',
    b'{"op_code":2,"worker_id":"a-1","study_id":3,"user_attr":{"id":"x"}}',
    b'{"op_code":0,"worker_id":"a-1","study_name":"other","directions":[1]}',
    b"\xff\xfe{\x00",
    b"[" * 50_000,
)


def journal(folder: Path) -> Path:
    """The journal of a made-up study in which trials are complete, pruned, failed, running and just created."""
    folder.mkdir(parents=True)
    study = SweepStudy.create(folder, made_up.sweep(f"name={folder.name}", "pruner=none", "budget.trials=7"))
    for _ in range(6):
        assert study.next_ticket() is not None
    study.report(0, made_up.history(3.0, 1.0, 2.0))
    study.report(1, [*made_up.history(4.0), made_up.rung(2000, 0.0, diverged="loss_g is nan")])
    study.fail(2, "out of memory")
    study.report(3, made_up.history(5.0, 4.0))
    study.report(4, made_up.history(2.0, 1.5, 1.75))
    return folder / "study.journal"


def damaged(data: bytes, seed: int) -> bytes:
    """`data` with one damage."""
    rng = random.Random(seed)
    lines = data.split(b"\n")[:-1]
    place, end = sorted((rng.randrange(len(data)), rng.randrange(len(data) + 1)))
    first, last = sorted((rng.randrange(len(lines)), rng.randrange(len(lines) + 1)))
    few = slice(first, first + rng.randrange(1, 5))
    match seed % 9:
        case 0:
            return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        case 1:
            return data[:place] + bytes(end - place) + data[end:]
        case 2:
            lines[first:first] = [rng.choice(STRANGERS)]
        case 3:
            lines[last:last] = lines[few]
        case 4:
            lines = lines[last:] + lines[first:last] + lines[:first]
        case 5:
            del lines[few]
        case 6:
            return data[:place] + data[place + rng.randrange(1, 400) :]
        case 7:
            changed = bytearray(data)
            for _ in range(20):
                changed[rng.randrange(len(data))] = rng.randrange(256)
            return bytes(changed)
        case 8:
            rng.shuffle(lines)
    return b"\n".join(lines) + b"\n"
