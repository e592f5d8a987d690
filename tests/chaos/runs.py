"""The runs, by name."""

from __future__ import annotations

from tests.chaos import (
    crashes,
    freezes,
    kills,
    locks,
    memory,
    restarts,
    signals,
    stops,
    strangers,
    terminations,
)

# each has `run(place, size) -> Figures`, and the sizes FULL and SHORT
RUNS = {
    "kills": kills,
    "freezes": freezes,
    "stops": stops,
    "restarts": restarts,
    "terminations": terminations,
    "memory": memory,
    "crashes": crashes,
    "strangers": strangers,
    "signals": signals,
    "locks": locks,
}
