"""Scoring: metrics under named protocols, tables of scores, and what they say."""

from hdnet_lib.evaluation.metrics import score
from hdnet_lib.evaluation.scoring import evaluate, score_methods

__all__ = ["evaluate", "score", "score_methods"]
