"""A region's worker processes on one host, and their number.

processes    watches, replaces and stops them
child        one of them: how it starts, its beat, and its place
scale        decides on their number, without I/O
scaler       agrees on it with the region's other pools
day          notes each minute of the region's day
report       tells the hub
metrics      what all processes did, for Prometheus
examiner     compiles changed definitions in a process of its own
"""
