"""What the original and its first fix would take, computed: one order after another, one a call."""

from __future__ import annotations

from collections.abc import Sequence

LIMIT = 25 * 60.0  # seconds: a run that takes longer is killed
PER_CLIENT = 200  # orders of a client in a run, at most
BATCH_CLIENTS = 5  # in its first fix
BATCH_ORDERS = 100


def all_clients(sizes: Sequence[int], call: float) -> list[int]:
    """In which run, counted from 1, each client's last order is tracked. Every run begins with the
    first client, and is killed wherever it is. call: seconds."""
    left, ended, run = list(sizes), [0] * len(sizes), 0
    while any(left):
        run += 1
        room = int(LIMIT / call)
        for client, orders in enumerate(left):
            taken = min(orders, PER_CLIENT, room)
            room -= taken
            left[client] -= taken
            if taken and not left[client]:
                ended[client] = run
    return ended


def in_batches(sizes: Sequence[int], call: float) -> list[int]:
    """The same with batches of clients: a run takes as many as surely fit, and the next goes on
    with the batch number after."""
    left, ended, run, room = list(sizes), [0] * len(sizes), 1, int(LIMIT / call)
    while any(left):
        for first in range(0, len(left), BATCH_CLIENTS):
            batch = range(first, min(first + BATCH_CLIENTS, len(left)))
            taken = [min(left[client], BATCH_ORDERS) for client in batch]
            if sum(taken) > room:
                run, room = run + 1, int(LIMIT / call)
            room -= sum(taken)
            for client, orders in zip(batch, taken, strict=True):
                left[client] -= orders
                if orders and not left[client]:
                    ended[client] = run
    return ended
