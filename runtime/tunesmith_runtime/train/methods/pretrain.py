"""Continued pretraining: cross entropy of every token of plain text, by the trainer of SFT."""

from __future__ import annotations

from tunesmith_api.method_facts import Method as MethodName
from tunesmith_runtime.data.records import PlainText
from tunesmith_runtime.train.methods.base import Method
from tunesmith_runtime.train.methods.sft import build_trainer

PRETRAIN = Method(MethodName.PRETRAIN, learns_from=frozenset({PlainText}), build_trainer=build_trainer)
