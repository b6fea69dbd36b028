"""Pure tensor operations: sparsemax, the fused mixture of experts, and V-trace."""

from polybeast_moe.ops.mixture import ExpertMixture, expert_mixture, sparsemax
from polybeast_moe.ops.vtrace import VTrace, vtrace

__all__ = ["ExpertMixture", "VTrace", "expert_mixture", "sparsemax", "vtrace"]
