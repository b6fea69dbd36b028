"""`python -m polybeast_moe` is `polybeast-moe`."""

import sys

from polybeast_moe.cli import main

if __name__ == "__main__":
    sys.exit(main())
