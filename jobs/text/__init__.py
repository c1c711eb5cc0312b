"""What texts and JSON values mean. Everything here is pure: no file, no network, no lxml.

bytes → charset       which charset, in the documented order; its text in UTF-8 (decoded)
  byte_patterns       UTF-16, UTF-32 and ISO-2022-JP, recognised by their bytes
  candidates          what the header and the page declare (prescan), and how well the text reads in each charset (bigrams)
  encodings           the decoders of the WHATWG Encoding Standard
text  → values        JSON values and texts: read, folded, shown, refused
  numbers             one number (affixes: what stands around it; number_words: currencies and multipliers)
  dates               dates and times (strptime: patterns; zones: time zones)
  pattern             RE2
  urljoin             absolute addresses
"""
