"""Compiles a definition, and reads pages into records with it (lxml).

source            a compiled definition: makes requests, reads pages
  select          selectors as functions (descendants: simple CSS without XPath; jsonld; element_text)
  record          fields as functions (convert: what a field's keys make of a value; warnings)
  paging          the request for the next page
  feed            RSS, Atom and RDF (feed_repair, feed_namespaces, feed_text; markup: XML as HTML, xml:base)
  plain_text      CSV, patterns, zip and gzip
  author_code     the functions of ID.py
contract_check    the promises of [contract], checked on the records
examine           all faults of a source's files (xpath_faults: those that only lxml can find)
"""
