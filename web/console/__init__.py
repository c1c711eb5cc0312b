"""The console: pages for people, on the gateway itself. Beside the calls of clients it asks nothing of its own.

pages         all pages on one screen, and who may see them
signin        a session in place of an API key
try_sources   ask sources, see the results come in
requests      finished and running requests, and one of them hop by hop
regions, sources, alerts, day   the other pages
frame         what all pages have in common
files         style sheets and scripts
markup        HTML that is escaped as it is made
"""
