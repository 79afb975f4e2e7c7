"""``python -m relaxloss`` is the command line."""

from relaxloss.cli import main

main()
