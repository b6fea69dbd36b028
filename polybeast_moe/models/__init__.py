"""Policies: encoders, graph attention over a knowledge graph, a router and its experts."""

from polybeast_moe.models.build import build_policy
from polybeast_moe.models.describe import describe
from polybeast_moe.models.interface import Observation, PolicyOutput

__all__ = ["Observation", "PolicyOutput", "build_policy", "describe"]
