"""The gateway. A room uses those below it (lint-imports holds that).

app           the routes on one screen, and the parts composed
api           what clients ask, one file a question
flow          the threads that move requests on
hub | http    the hub's Redis; sockets, requests and answers
"""
