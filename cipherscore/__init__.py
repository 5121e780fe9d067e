"""CipherScore: credit scoring and synthetic credit data on encrypted categories.

This file stays empty on purpose: importing ``cipherscore.schema`` must never load a key module.
"""

__version__ = "0.1.0"
