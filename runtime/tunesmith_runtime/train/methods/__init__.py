"""Training methods: each module defines one `Method`, and METHODS finds it by its name in the API."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith_api.method_facts import Method as MethodName
from tunesmith_runtime.train.methods.base import Method, Setup
from tunesmith_runtime.train.methods.classify import CLASSIFY
from tunesmith_runtime.train.methods.cpo import CPO
from tunesmith_runtime.train.methods.dpo import DPO
from tunesmith_runtime.train.methods.embed import EMBED
from tunesmith_runtime.train.methods.gkd import GKD
from tunesmith_runtime.train.methods.grpo import GRPO
from tunesmith_runtime.train.methods.kto import KTO
from tunesmith_runtime.train.methods.orpo import ORPO
from tunesmith_runtime.train.methods.ppo import PPO
from tunesmith_runtime.train.methods.pretrain import PRETRAIN
from tunesmith_runtime.train.methods.rerank import RERANK
from tunesmith_runtime.train.methods.reward import REWARD
from tunesmith_runtime.train.methods.rloo import RLOO
from tunesmith_runtime.train.methods.sft import SFT
from tunesmith_runtime.train.methods.simpo import SIMPO

__all__ = ["METHODS", "Method", "Setup"]

METHODS: Mapping[MethodName, Method] = {
    method.name: method
    for method in (SFT, PRETRAIN, DPO, ORPO, SIMPO, CPO, KTO, REWARD, CLASSIFY, EMBED, RERANK, GRPO, RLOO, PPO, GKD)
}
