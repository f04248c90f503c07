"""Tuning: every constant that learning depends on, in one place."""

from __future__ import annotations

import msgspec


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """How fast and how far learning goes.

    Recalibration:
    window       newest labels of a scope that count
    shift_sd     how much the shift (in log-odds) of a tenant differs from its gateway's, and a scope's from its tenant's: standard
    slope_sd     deviation of the Gaussian priors; the same for the slope
    gateway_sd   how much shift and slope of a gateway differ from none (0 and 1), as a share of the two
    loudest      no tenant's word says more than so many standard deviations
    least_slope  the prior's order is never reversed, nor its differences lost
    most_shift   a scope is never shifted further, in log-odds
    weights      how much a label of each origin counts: who complains has reason to, who is content says nothing

    Entries (see `reliability`):
    broad        share of entries that fit more questions than they seem to
    broad_wrong  odds of these to be wrong, in parts of what the prior says
    hub_share    share of all wrong candidates that come from hubs: entries near to many questions and right for few
    hub_right    how often a hub is right, in parts of what the prior says
    proofs       right labels in a row after which an entry that was withdrawn is served again

    Bar:
    found        answers by meaning that a scope is taken to have had before any was counted,
    mix          and how many answers from stock there are for one of these, in traffic of which nothing is known
    fading       what a bar that is asked for leaves of the rate that the scope was held to, so that an old laxer one is forgotten
    prevented    share of the prior's errors that labels and checks prevent; measured on the half of a stream that was tuned on
    most         by meaning may err at most this many times the rate that was promised for all answers from stock
    memory       answers from stock after which the counts are halved

    Drift (see `drift`):
    false_alarm  probability that a scope which keeps its promise is ever tightened
    slack        what is believed of a tightened scope before it is loosened again: less than so many times its promised rate
    relief       evidence that this takes, as odds

    Bounds of memory: scopes and entries of which something is known.
    """

    window: int = 500
    shift_sd: float = 0.6
    slope_sd: float = 0.2
    gateway_sd: float = 0.5
    loudest: float = 3.0
    least_slope: float = 0.3
    most_shift: float = 4.0
    check_weight: float = 1.0
    miss_weight: float = 0.5
    feedback_weight: float = 0.25

    broad: float = 0.10
    broad_wrong: float = 0.4
    hub_share: float = 0.3
    hub_right: float = 0.3
    proofs: int = 3

    found: float = 20.0
    mix: float = 3.5
    prevented: float = 0.2
    fading: float = 0.999
    most: float = 4.0
    memory: float = 4_000.0

    false_alarm: float = 0.02
    slack: float = 2.0
    relief: float = 10.0

    scopes: int = 4_000
    entries: int = 100_000
