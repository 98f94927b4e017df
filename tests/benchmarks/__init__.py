"""The benchmarks: speed shown as a ratio between two things measured in one run.

    python -m tests.benchmarks                     every benchmark, in full
    python -m tests.benchmarks core endpoint       some of them
    python -m tests.benchmarks --short             seconds each, to see that they still run (CI)
    python -m tests.benchmarks core --json         for machines
    python -m tests.benchmarks core --plot f.png   a picture of the curves (needs matplotlib)

A benchmark is a module of this package with `TITLE` and `measure(short) -> Table | list[Table]`.
Nothing here asserts on time: a table is read by a person, with its medians and their spread.
Peers that are compared with are optional: `pip install -r tests/benchmarks/requirements-peers.txt`.
"""
