"""The policy network and its graph stream."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from polybeast_moe.config.base import Section

SEMANTIC_EXPERTS = ("survival", "combat", "exploration", "general")


class GraphConfig(Section):
    """The graph stream of the policy: which knowledge graph, and the size of its attention layers."""

    enabled: bool = True
    file: str = "graphs/nethack.yaml"
    hidden: PositiveInt = 64
    heads: PositiveInt = 4
    implementation: Literal["batched", "pyg"] = "batched"
    deduplicate: bool = Field(
        True, description="attention once for each distinct neighbourhood; false: for every row, in fixed shapes"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> GraphConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class RouterConfig(Section):
    """Scores are `score_bound * tanh(s / score_bound)` before the temperature divides them."""

    kind: Literal["learned", "frozen", "scenes"] = Field(
        "learned", description="frozen: random and never trained; scenes: the expert that the raw observation calls for"
    )
    keep: PositiveInt | None = Field(None, description="in each state only so many best scores count; None: all")
    hidden: PositiveInt = 64
    score_bound: PositiveFloat = 1.0
    operator_prior: bool = Field(True, description="add the graph's operator scores, their log-mean-exp per expert")

    @model_validator(mode="after")
    def _prior_is_learned(self) -> RouterConfig:
        if self.kind != "learned" and self.operator_prior:
            raise ValueError(f"the prior is learned: kind {self.kind} goes with operator_prior: false")
        return self


class PolicyConfig(Section):
    """The policy network. `class` is an import path; a class of the user's own is made as the one here is."""

    class_: str = Field("polybeast_moe.models.policy.GraphMoEPolicy", alias="class")
    glyph_embedding: PositiveInt = 16
    conv_channels: PositiveInt = 32
    hidden: PositiveInt = 256
    message: bool = Field(True, description="encode the message line as a bag of characters")
    full_map: bool = Field(False, description="encode the whole map beside the crop; needs env.store_glyphs")
    inventory: bool = Field(False, description="encode the inventory; needs env.store_inventory")
    landmarks: bool = Field(
        False,
        description="direction and distance of the nearest stairs, door, object, creature and unexplored edge; "
        "needs env.store_glyphs",
    )
    lstm: int = Field(0, ge=0, description="units of the recurrent core; 0: none")
    experts: tuple[str, ...] = Field(SEMANTIC_EXPERTS, min_length=1, max_length=64)
    expert_hidden: PositiveInt = 128
    expert_intent: bool = Field(True, description="experts read the graph's intent vector beside the visual stream")
    expert_execution: Literal["auto", "dense", "sparse"] = Field(
        "auto", description="sparse: an expert runs only for rows that weigh it; auto: where that is faster"
    )
    action_mask: bool = Field(
        False, description="never choose an action whose operators' requirements in the graph are not met"
    )
    single_expert: Literal["none", "equal_parameters", "equal_operations"] = Field(
        "none", description="replace experts and router by one expert of equal size, for comparison"
    )
    single_expert_support: PositiveFloat = Field(2.0, description="experts a row that equal_operations counts")
    router: RouterConfig = RouterConfig()
    mixture_backend: Literal["auto", "torch", "numba", "triton"] = "auto"

    @field_validator("experts")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("expert names must differ")
        return value

    @model_validator(mode="after")
    def _router_fits_experts(self) -> PolicyConfig:
        if self.router.keep is not None and self.router.keep > len(self.experts):
            raise ValueError(f"router.keep ({self.router.keep}) is more than there are experts ({len(self.experts)})")
        if self.router.kind == "scenes" and self.experts != SEMANTIC_EXPERTS:
            raise ValueError(f"router.kind scenes needs the experts {', '.join(SEMANTIC_EXPERTS)}")
        return self

    @property
    def expert_names(self) -> tuple[str, ...]:
        """The experts that the policy has."""
        return self.experts if self.single_expert == "none" else ("single",)
