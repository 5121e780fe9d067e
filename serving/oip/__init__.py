"""The Open Inference Protocol (version 2) over gRPC and HTTP, as other model servers speak it."""
