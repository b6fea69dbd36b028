"""Policies: encoders, graph attention over a knowledge graph, a router and its experts."""

from polybeast_moe.models.build import build_policy
from polybeast_moe.models.describe import describe
from polybeast_moe.models.interface import Observation, Policy, PolicyOutput

__all__ = ["Observation", "Policy", "PolicyOutput", "build_policy", "describe"]
