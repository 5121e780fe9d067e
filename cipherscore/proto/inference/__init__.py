"""Generated stubs of `grpc_service.proto` (package ``inference``); made by ``make proto``."""
