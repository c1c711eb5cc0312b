"""An author's tools.

trial, samples         runs a source as a worker would; keeps pages and records as tests
replay, record_diff    parses kept raw answers again; compares records
guess, letters         proposes rows and fields for a page; makes the table of letters for jobs.text.bigrams
"""
