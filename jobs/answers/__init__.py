"""Answers that a region keeps: to use them again, and to show operators what a site sent.

cache     the region's last good answer to a question
tokens    values of ``[before]``, in a process's memory
raw       the answers of a task, packed for operators
redact    takes secrets out of them
store     the folder that they are in
"""
