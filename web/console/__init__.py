"""The console: pages for people, made by the gateway. It has no data of its own, and makes the same calls as clients.

pages         all pages on one screen, and who may see them
signin        a session in place of an API key
try_sources   ask sources, see the results come in
requests      finished and running requests, and one of them hop by hop
regions, sources, alerts, day   the other pages
frame         what all pages have in common
files         style sheets and scripts
markup        HTML that is escaped as it is made
"""
