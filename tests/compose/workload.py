"""What clients do in their containers: `python3 - COMMAND ARGUMENTS < workload.py`. Runs on what the image has.

    tree FOLDER FILES     make a tree of samples, each under the checksum of its bytes
    train FOLDER STOP     epochs over the tree with the API, until the file STOP is there; one line for each
    write FOLDER STOP     write, sync, rename and read files of a mount, until STOP is there
    check FOLDER FILES    compare every byte below a folder of a mount with its checksum
    check-api FOLDER FILES   the same with the API

Each prints lines of JSON, and ends with status 1 at the first byte that is not what it was.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

FEATURES = 16
SAMPLES_IN_A_FOLDER = 64
BATCH_SIZE = 32
WRITTEN_BYTES = 200_000


def say(**what):
    print(json.dumps(what), flush=True)


def name_of(data):
    return hashlib.sha256(data).hexdigest()[:32]


def require(data, path):
    found, wanted = name_of(data), os.path.basename(path).partition(".")[0]
    if found != wanted:
        sys.exit(f"{path}: its bytes have checksum {found}")


def make_tree(folder, files):
    """Each sample: features and a label that depends on them, then filling, so that sizes differ."""
    import numpy as np

    random = np.random.default_rng(1)
    weights = random.normal(size=FEATURES)
    total = 0
    for number in range(int(files)):
        features = random.normal(size=FEATURES)
        head = np.append(features, features @ weights).astype("<f8").tobytes()
        data = head + random.bytes(int(random.integers(0, 1 << 17 if number % 16 else 1 << 21)))
        path = Path(folder, f"{number // SAMPLES_IN_A_FOLDER:03}", f"{name_of(data)}.sample")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        total += len(data)
    say(files=int(files), bytes=total)


def train(folder, stop):
    import numpy as np

    from fs_client.loader.file_dataset import FileDataset
    from fs_client.loader.sampler import ElasticBatchSampler

    with FileDataset(None, folder) as dataset:
        sampler = ElasticBatchSampler(len(dataset), BATCH_SIZE, seed=1)
        weights = np.zeros(FEATURES)
        epoch = 0
        while not os.path.exists(stop):
            sampler.set_epoch(epoch)
            losses, seen = [], 0
            for indices in sampler:
                rows = []
                for index, sample in zip(indices, dataset.__getitems__(indices), strict=True):
                    data = bytes(sample)
                    require(data, dataset.path(index))
                    rows.append(np.frombuffer(data[: 8 * (FEATURES + 1)], "<f8"))
                batch = np.stack(rows)
                error = batch[:, :FEATURES] @ weights - batch[:, FEATURES]
                weights -= 0.05 * batch[:, :FEATURES].T @ error / len(error)
                losses.append(float(error @ error / len(error)))
                seen += len(indices)
            say(epoch=epoch, samples=seen, loss=sum(losses) / len(losses))
            epoch += 1


def write(folder, stop):
    os.makedirs(folder, exist_ok=True)
    number = 0
    slowest = 0.0
    while not os.path.exists(stop):
        began = time.monotonic()
        data = os.urandom(WRITTEN_BYTES)
        new, path = f"{folder}/new", f"{folder}/{name_of(data)}.written"
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, path)
        with open(path, "rb") as file:
            require(file.read(), path)
        number += 1
        slowest = max(slowest, time.monotonic() - began)
        if number % 10 == 0:
            say(written=number)
    say(written=number, slowest_s=round(slowest, 1))


def check(folder, files):
    count = 0
    for path in Path(folder).rglob("*.*"):
        require(path.read_bytes(), str(path))
        count += 1
    say(checked=count)
    if int(files) not in (0, count):
        sys.exit(f"{folder}: {count} files instead of {files}")


def check_api(folder, files):
    from fs_client.loader.file_dataset import FileDataset

    with FileDataset(None, folder) as dataset:
        for first in range(0, len(dataset), BATCH_SIZE):
            indices = range(first, min(first + BATCH_SIZE, len(dataset)))
            for index, sample in zip(indices, dataset.__getitems__(indices), strict=True):
                require(bytes(sample), dataset.path(index))
        say(checked=len(dataset))
        if int(files) not in (0, len(dataset)):
            sys.exit(f"{folder}: {len(dataset)} files instead of {files}")


COMMANDS = {"tree": make_tree, "train": train, "write": write, "check": check, "check-api": check_api}
COMMANDS[sys.argv[1]](*sys.argv[2:])
