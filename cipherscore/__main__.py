"""``python -m cipherscore``."""

from cipherscore.cli import main

main()
