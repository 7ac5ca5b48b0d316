"""A small training whose record is streamed; run as a script it trains until it is killed.

python streamed_training.py STORE [DIE_AT]: with DIE_AT the process kills itself in the write of that step,
when the values are in the store and the shapes are not.
"""

import os
import signal
import sys

import torch

import noisekit as nk
from noisekit.results import stream_record
from noisekit.results.growing_store import GrowingStore

WIDTH, BATCH = 6, 24


def training(seed=0, **options):
    """A model with its recorder, and a function that trains it a number of steps."""
    torch.manual_seed(seed)
    model, loss_fn = torch.nn.Linear(WIDTH, 2), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"coordinates": 8, "sketch": 4, "schedule": nk.every(1)} | options
    recorder = nk.GradientNoiseRecorder(model, loss_fn, optimizer, **options)

    def train(first, last, batch=BATCH):
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(batch, WIDTH, generator=generator)
            y = torch.randint(2, (batch,), generator=generator)
            optimizer.zero_grad()
            loss_fn(model(x), y).backward()
            optimizer.step()

    return recorder, train


def die_in_write(length):
    """Make the writer die when the store has ``length`` steps and the values of the next are written."""
    finish = GrowingStore._finish

    def finish_or_die(store, count):
        if store.length == length:
            os.kill(os.getpid(), signal.SIGKILL)
        finish(store, count)

    GrowingStore._finish = finish_or_die


def main(path, die_at=-1):
    torch.set_num_threads(1)
    if die_at >= 0:
        die_in_write(die_at)
    recorder, train = training()
    with recorder, stream_record(recorder, path):
        for step in range(100_000):
            train(step, step + 1)
            print(step, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
