"""The runs, by name."""

from __future__ import annotations

from tests.chaos import (
    breakers,
    crashes,
    freezes,
    kills,
    leaders,
    locks,
    memory,
    rates,
    restarts,
    shares,
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
    "rates": rates,
    "shares": shares,
    "breakers": breakers,
    "leaders": leaders,
    "locks": locks,
}
