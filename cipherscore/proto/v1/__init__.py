"""Generated stubs of `cipherscore.proto` (package ``cipherscore.v1``); made by ``make proto``."""
