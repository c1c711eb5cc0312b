"""The command line, and what ``scripts/up`` starts. A room uses those below it (lint-imports checks that).

cli                           the commands' names, options and help
commands                      what they do, one file each
bench | chaos | authoring     benchmarks; faults under load; an author's tools
stack                         what up starts and watches
terminal | site               what people see; the sample site
"""

VERSION = "0.1.0"  # scripts/up reads this line
