// One text while it is written: its clock, its marks, its tally.

import { MarkedText } from "/page/marked_text.js";
import { SpokenText } from "/page/spoken_text.js";
import { streamed } from "/page/stream.js";

/** Milliseconds between two looks at the clock, for those who want no motion. */
const CALM = 500;

export class Lane {
  constructor(element) {
    this.element = element;
    this.marked = new MarkedText(element.querySelector(".text"));
    this.spoken = new SpokenText(element.querySelector(".spoken"));
    this.clock = element.querySelector(".clock");
    this.tally = element.querySelector(".tally");
  }

  /** Forget the last text. `prompt`: what the coming one goes on from. */
  clear(prompt = "") {
    this.marked.begin(prompt);
    this.spoken.clear();
    this.tally.textContent = "";
    this.#show(0);
  }

  get text() {
    return this.marked.plain;
  }

  /** Write a text to its end. `onStep` is told of each step. Returns what came of it; throws what `streamed` throws. */
  async write({ path, body }, key, signal, onStep = () => {}) {
    const began = performance.now();
    const counted = { tokens: 0, milliseconds: 0, reason: null, totals: null, usage: null };
    const stopClock = this.#runClock(began);
    try {
      for await (const chunk of streamed(path, body, key, signal)) this.#take(chunk, counted, onStep);
    } finally {
      stopClock();
      this.spoken.end();
      counted.milliseconds = performance.now() - began;
      this.#show(counted.milliseconds);
      this.tally.textContent = tallyOf(counted);
    }
    return counted;
  }

  #take(chunk, counted, onStep) {
    const choice = chunk.choices[0];
    if (!choice) {
      counted.totals = chunk.speculation ?? null;
      counted.usage = chunk.usage ?? null;
      return;
    }
    const text = choice.text ?? choice.delta?.content ?? "";
    const told = chunk.speculation;
    counted.reason = choice.finish_reason ?? counted.reason;
    counted.tokens += told?.tokens ?? 0;
    // A verifier that is too old tells of no runs: then nothing is known of who wrote it.
    this.marked.add(told?.runs ?? (text ? [{ text, source: "target" }] : []), told?.rejected);
    this.spoken.add(text);
    if (told?.plan) onStep(told);
  }

  #runClock(began) {
    this.element.classList.add("running");
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const tick = () => this.#show(performance.now() - began);
    const timer = setInterval(tick, calm ? CALM : 50);
    return () => {
      clearInterval(timer);
      this.element.classList.remove("running");
    };
  }

  #show(milliseconds) {
    this.clock.textContent = `${(milliseconds / 1000).toFixed(2)} s`;
  }
}

/** One line about a text that ended, or was stopped. */
function tallyOf({ tokens, milliseconds, totals }) {
  const parts = [`${tokens} ${tokens === 1 ? "token" : "tokens"}`];
  if (tokens && milliseconds) parts.push(`${((tokens * 1000) / milliseconds).toFixed(1)} per second`);
  if (totals?.tokens_per_step) parts.push(`${totals.tokens_per_step.toFixed(2)} per step`);
  if (totals?.draft_tokens) {
    parts.push(`${totals.accepted_tokens} of ${totals.draft_tokens} draft tokens accepted`);
  }
  return parts.join(" · ");
}
