"""``python -m jobs.worker REGION NAME``: one worker process of a region."""

import sys

from jobs.worker.worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
