"""The gateway. Each line imports only from the lines below it; lint-imports checks that.

gateway       how the parts are put together, started and stopped
app           all routes on one screen, and what holds for every call
console       pages for people, made of those answers
api           answers to clients' calls
flow          the threads that move requests on
hub | http    the hub's Redis; sockets, requests and answers
"""
