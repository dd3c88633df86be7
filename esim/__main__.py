"""`python -m esim` is the console command."""

import sys

from esim.cli import main

sys.exit(main())
