// What the steps of one text show together.

/** Steps that are plotted one by one. */
const STEPS = 60;

export class Figures {
  constructor() {
    this.clear();
  }

  clear() {
    this.tried = [];
    this.accepted = [];
    this.steps = [];
    this.count = 0;
    this.tokens = 0;
  }

  /** `told`: the "speculation" of a chunk. */
  add(told) {
    this.count += 1;
    this.tokens += told.tokens;
    for (let place = 0; place < told.positions; place += 1) {
      this.tried[place] = (this.tried[place] ?? 0) + 1;
      this.accepted[place] = (this.accepted[place] ?? 0) + (told.accepted_tokens > place);
    }
    this.steps.push(told);
    if (this.steps.length > STEPS) this.steps.shift();
  }

  /** Shares by position, for as many positions as were tried. */
  get acceptance() {
    return this.tried.map((tried, place) => this.accepted[place] / tried);
  }

  /** Mean acceptance length, the target's own token included; null before the first step. */
  get tokensPerStep() {
    return this.count ? this.tokens / this.count : null;
  }
}
