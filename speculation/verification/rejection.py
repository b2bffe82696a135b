"""Rejection sampling of draft tokens: the probabilities, and why whole texts are the target's.

One position. The drafter drew X from q, the target's distribution is p. X is accepted with probability
a(X) = min(1, p(X) / q(X)); else the token is drawn from r = max(p - q, 0) / sum max(p - q, 0). The token v comes out
with probability q(v) a(v) + (1 - sum q a) r(v) = min(p, q)(v) + (p(v) - min(p, q)(v)) = p(v)
(Leviathan et al. 2023, theorem in appendix A.1; Chen et al. 2023, theorem 1). Nothing is asked of q. For different
vocabularies it is the drafter's distribution over the common tokens (TLI, Timor et al. 2025, algorithm 4:
q'(t) = q(t) / sum_{x in T and D} q(x)), or that of the target token that its text begins with (SLRS, algorithm 3; see
``string_rejection``). The two are verified alike.

Whole texts, with drafts that come late, overlap, or do not come. Let h be a list of committed tokens. The claim is
that the token after h is distributed as p( . | h), whatever came before. It follows from the equation above if, given
h and all that came before, (1) X is distributed as q, and (2) whether X is used is independent of X. Hence the rules:

  * Each draw has noise of its own, a function of (seed, offset, zero_width, purpose), where a drafter's purpose holds
    the number of its offer and of the attempt at that place. So what a drafter drew earlier, for another branch or
    before a restart, says nothing about X. The target's own draw, its acceptance and its residual are three more
    purposes. Each place in the text is decided once, so none of the target's noise is used twice.
  * A draft token travels alone, as soon as it is drawn, in a message whose size does not depend on it (but for two
    bytes, if the drafter rests then): it arrives, or fails to, whatever it is. If likely tokens waited for company, or
    the end token were sent sooner, being in time would depend on X, and the text would lean towards what is sent soon.
    What is drafted *after* X may depend on X.
  * Text that is not drawn (an alternative, a lookup, a prediction, what is left of a token that was cut) is spelled to
    the place where the next token was drawn and no further, and the candidates go on with that token. Were it spelled
    across the place, what follows would decide with which token the text gets there, or whether it passes by.
  * Beside X there may be such text, and tokens drawn behind it: what is drawn instead of X is then met by another
    branch of the same step. Which text that is may depend on X. But X becomes a candidate before any text at its place,
    and whether there is room for it, and whether it is likely enough to be sent or verified, is judged by the place and
    by q alone, never by what was drawn.
  * A step may be held back for more, by what is there already: how many tokens, which, whether the drafter rests after
    them. All of these stand in its chain whatever they are, and one that has not come is waited for, or not, alike.
  * Among several for one place the first to arrive is used, never the better one; a later one does not replace it.
  * It is used at most once: whatever is decided at its place, accepted, rejected or drawn without it, takes the text
    past that place. Tokens without bytes do not move the offset, so there the place's draft is thrown away.
  * An end token that was drawn is verified like any other, also where the request goes on after the end.

Not needed is that drafter and target agree on h in tokens. A draft token is addressed by the text before it, and used
where the target stands at just that text: after "ab" drafted as one token and committed as two, the token drafted
next is still a fresh draw from its own q, which is all that (1) asks; that its address was reached depends on the
tokens before it, which are part of h. A token whose text the committed text cuts in two is not used in this way.

All other drafts (alternatives, text from a lookup, a client's prediction, what is left of a token that was cut) are
verified by agreement: the target draws from p, or after a rejection from r, with its own noise, and a candidate that
equals the draw only saves a step.

Drafters are trusted. One that draws from another distribution than it sends, or sends by what it drew, changes the
texts' distribution; so does one that sends no more than text, but chooses it by other draws of the seed, which every
drafter is told: it can fill the pool before a draft token comes that it does not like. No check on single messages
can find that out. Under ``race`` and ``exact`` no drafter has such power.
"""

from __future__ import annotations

import torch
from torch import Tensor

from speculation.protocol.proposal import Proposal

ACCEPT_STREAM, RESIDUAL_STREAM = "accept", "residual"


def draft_stream(offer: int, attempt: int) -> str:
    """The drafter's purpose: the n-th draw at a place, for the offer of that number."""
    return f"draft {offer}.{attempt}"


def acceptance_probability(p: Tensor, proposal: Proposal) -> float:
    """a = min(1, p(X) / q(X)). ``p``: float64 [V]."""
    return min(1.0, float(p[proposal.token]) / proposal.probability)


def residual(p: Tensor, proposal: Proposal) -> Tensor:
    """max(p - q, 0), not normalised: float64 [V]; p itself where rounding leaves nothing."""
    ids = torch.tensor(proposal.ids, device=p.device)
    q = torch.tensor(proposal.weights, dtype=torch.float64, device=p.device) / proposal.total
    rest = p.index_put((ids,), (p[ids] - q).clamp_min_(0.0))
    return rest if float(rest.sum()) > 0 else p
