"""Turns finished trainings into checked ONNX models and registry versions."""
