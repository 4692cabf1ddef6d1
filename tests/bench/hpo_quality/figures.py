"""The figures of a comparison, from the regrets of both in every pair: a pair is one problem with one seed."""

import math
import random

# Half the width of a 95 % interval of the normal distribution.
Z = 1.959963984540054


def wilson(wins, pairs):
    """The 95 % interval of a share (Wilson, 1927); ties are in `wins` as halves."""
    share = wins / pairs
    middle = share + Z * Z / (2 * pairs)
    spread = Z * math.sqrt(share * (1 - share) / pairs + Z * Z / (4 * pairs * pairs))
    return [(middle - spread) / (1 + Z * Z / pairs), (middle + spread) / (1 + Z * Z / pairs)]


def mean(values):
    return sum(values) / len(values)


def ratio(ours, theirs):
    if theirs == 0:
        return 1.0 if ours == 0 else math.inf
    return ours / theirs


def row(ours, theirs):
    """Of one problem, or of lists of several: both have a regret for each pair."""
    wins = sum((a < b) + (a == b) / 2 for a, b in zip(ours, theirs))
    mine, other = mean(ours), mean(theirs)
    return {
        "pairs": len(ours),
        "wins": wins,
        "share": wins / len(ours),
        "interval": wilson(wins, len(ours)),
        "regret_ours": mine,
        "regret_optuna": other,
        "ratio": ratio(mine, other),
    }


def together(by_problem):
    """Of all pairs; problems weigh as much as they have pairs.

    The ratio of the mean regrets has an interval from a bootstrap that draws the pairs of each problem anew. Beside it stands the
    geometric mean of the problems' own ratios, in which an easy problem counts as much as a hard one; a regret below 1e-6 counts as
    that.
    """
    ours = [regret for pairs in by_problem.values() for regret, _ in pairs]
    theirs = [regret for pairs in by_problem.values() for _, regret in pairs]
    source, ratios = random.Random(1), []
    for _ in range(2000):
        drawn = [pair for pairs in by_problem.values() for pair in source.choices(pairs, k=len(pairs))]
        ratios.append(ratio(sum(a for a, _ in drawn), sum(b for _, b in drawn)))
    ratios.sort()
    least = 1e-6
    logs = [
        math.log(max(mean([a for a, _ in pairs]), least) / max(mean([b for _, b in pairs]), least))
        for pairs in by_problem.values()
    ]
    return row(ours, theirs) | {"ratio_interval": [ratios[50], ratios[1949]], "geometric_ratio": math.exp(mean(logs))}


def lost(one, many, random_search):
    """What is lost with many trials open, as shares.

    `of_quality`: quality is 1 - regret. `of_gain`: the gain is what lies between the regret of a random search of as many trials and
    the regret. Either is NaN where there is nothing to lose.
    """
    one, many, random_search = mean(one), mean(many), mean(random_search)
    gain, quality = random_search - one, 1 - one
    return {
        "regret_one": one,
        "regret_many": many,
        "regret_random": random_search,
        "of_quality": (many - one) / quality if quality > 0 else math.nan,
        "of_gain": (many - one) / gain if gain > 0 else math.nan,
    }
