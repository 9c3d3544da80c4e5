"""Lighthouse Attention: exact tensors, and a checker for other implementations."""
from ._check import Fault, Report, Verdict, assert_right, check
from ._library import LighthouseError
from ._trace import trace

__all__ = ["trace", "check", "assert_right", "Report", "Verdict", "Fault", "LighthouseError"]
