"""Reads and checks the definitions of sources. The gateway uses them, too, so nothing here needs lxml or requests.

catalog     all definitions of some folders, read again when a file changes
read        a file → a Definition (model) or all its faults (reader: tables and their faults)
  ask       the request; hosts: which hosts its address may lead to
  params    what clients may choose
  field     fields and selectors; field_reader: how they are read (css, jmes)
  limits    [limits] and [contract]; delimited: [csv]
schema      the JSON Schema of a record
"""
