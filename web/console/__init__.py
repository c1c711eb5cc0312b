"""The console: pages for people, made by the gateway. It has no data of its own, and makes the same calls as clients.

pages                  all pages on one screen, and who may see them
signin                 a session in place of an API key
try_sources            ask sources, see the results come in
requests, one_request  finished and running requests; one of them hop by hop
regions, sources, alerts, day   the other pages (graphs, day_picture: their drawings)
frame                  what all pages have in common
files                  style sheets and scripts
"""
