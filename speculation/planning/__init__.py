"""How far to speculate: the plan, the cost model that chooses it, the fits that it rests on, patience and trials."""
