"""Mutation of what holds the promises: each guard is changed in one place, and some test must fail.

mutants.py       a file's mutants: Python by cosmic-ray and by dropped statements, Lua by operators of our own
run.py           tries them on copies of the checkout: tests that killed a neighbour first
targets.toml     the files, and the tests that hold each
equivalent.toml  mutants that change nothing that anybody can see, each with its reason
"""
