"""Tasks, sources and workers. A room uses those below it; rooms on one line do not import each other (lint-imports checks that).

    pool | webhook                      a region's worker processes on one host, and their number; calls of webhooks, at the hub
    worker                              one worker process
    task                                one task's life
    answers | queue | fetch | parse     kept answers; the region's Redis; to the source and back; a page read into records
    page                                a page, as authors' code sees it; html5 corrects trees that browsers would read differently
    definition                          what a source's file says
    text                                what texts and JSON values mean
    result_frame                        a result as it travels and is kept
    contract | memory                   what crosses a process; how memory is shared out
    errors | origin | blocked           what can go wrong; scheme, name and port; threads that wait and need no processor

``jobs/sources`` has the definitions that are shipped.
"""
