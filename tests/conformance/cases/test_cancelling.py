"""Cancelling: the model passes, and each fault is noticed and named."""

from __future__ import annotations

from typing import ClassVar

from tests.conformance.cases.judging import ExtensionCases


class TestCancelling(ExtensionCases):
    CASES = ("ORB-EXT-08", "ORB-EXT-09", "ORB-EXT-10", "ORB-EXT-11", "ORB-EXT-12", "ORB-EXT-13", "ORB-EXT-14")
    SAYS: ClassVar = {
        "cancels-what-runs-only": "which is queued and its client has cancelled",
        "cancels-what-waits-only": "which worker#1 holds",
        "cancelled-jobs-are-sent": "is sent to a worker",
        "cancelled-is-timeout": '"error_kind": "timeout"',
        "first-of-a-cancel-request": "seen: no answer",
        "nobody-is-recalled": "seen: nothing",
        "everybody-is-recalled": "worker#2, which has none of them",
        "recalled-by-the-clients-name": 'seen: [["j1"]]',
        "whole-batch-recalled": "cancel_jobs name the ids",
        "deadlines-unrecalled": "whose timeout_ms is over",
        "heartbeats-unrecalled": "whose heartbeat_ms is over",
        "no-heartbeat": "heartbeat_timeout",
        "lost-clients-unrecalled": "whose client is gone",
        "cancelled-answers-delivered": "a new one under an old name",
        "cancelled-names-are-used-up": "is sent to a worker",
        "anybody-cancels": '["shared"]',
        "unknown-names-close": "closed with 1008",
        "unknown-names-are-told": "seen: an answer",
        "cancelling-frees-the-worker": "the next batch is there",
        "cancelling-costs-the-worker": "nothing is sent",
        "everybody-hears-of-cancelling": "cancel_jobs",
        "everybody-cancels": "which did not ask for `cancel`",
        "cancelled-told-unasked": "which did not ask to be told",
    }
