"""Real workloads, each on a table of its own, with the outside API that it depends on.

python -m examples.accounts
python -m examples.donations
python -m examples.markets
"""
