"""Builds the policy that a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from polybeast_moe.config import RunConfig
from polybeast_moe.errors import UserError, nearest
from polybeast_moe.import_paths import module_of
from polybeast_moe.models.interface import Policy

if TYPE_CHECKING:
    from polybeast_moe.graph import KnowledgeGraph


def build_policy(config: RunConfig, graph: KnowledgeGraph | None, *, num_actions: int) -> Policy:
    """Makes `policy.class` as `class(config, graph, num_actions=A)`; `docs/policy.md` tells what it must offer.

    Raises UserError where the class cannot be imported or is not a policy.
    """
    make: Callable[..., Policy] = policy_class(config.policy.class_)
    return make(config, graph, num_actions=num_actions)


def policy_class(path: str) -> type[Policy]:
    """Imports a class by its path, `package.module.Class`. Raises UserError naming what is missing."""
    module, name = module_of(path, "policy.class")
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, Policy)):
        kinds = {key: value for key, value in vars(module).items() if isinstance(value, type)}
        policies = [key for key, value in kinds.items() if issubclass(value, Policy)]
        raise UserError(
            f"policy.class: {module.__name__!r} has no subclass of polybeast_moe.models.Policy named {name!r}"
            f"{nearest(name, policies)}"
        )
    return found
