"""Comparisons with what others read or write, on generated and recorded input.

python -m tests.differential numbers dates …    prints what differs, with the seed

Each module has ``compare(seed, count)``, which yields a sentence for each difference; the suite's short run calls the same.
"""
