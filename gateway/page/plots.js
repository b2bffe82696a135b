// Four small plots of what the steps show: drawn anew at most once a frame.

import { drawing, shape } from "/page/svg.js";

const HEIGHT = 112;
/** Of the drawing within its figure: room for the numbers at the left, and below. */
const LEFT = 34;
const BOTTOM = 18;
const TOP = 6;
const FLOOR = HEIGHT - BOTTOM;

export class Plots {
  constructor(figures) {
    this.figures = figures;
    this.asked = false;
    for (const id of ["acceptance", "tokens", "plan", "trip"]) {
      new ResizeObserver(() => this.draw()).observe(document.querySelector(`#plot-${id} .drawing`));
    }
  }

  /** Soon. */
  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      const { figures } = this;
      put("acceptance", acceptance(figures.acceptance));
      put("tokens", tokensPerStep(figures.steps, figures.tokensPerStep));
      put("plan", plan(figures.steps));
      put("trip", roundTrip(figures.steps));
    });
  }
}

/** `paint`: the shapes for a width; `now`: the newest figure in words; `label`: the whole in words. */
function put(id, { now, label, paint }) {
  const figure = document.getElementById(`plot-${id}`);
  const place = figure.querySelector(".drawing");
  figure.querySelector(".now").textContent = now;
  const width = place.clientWidth || 280;
  place.replaceChildren(drawing(width, HEIGHT, label, paint(width)));
}

function empty(width, words) {
  return [
    shape("line", { class: "axis", x1: 0, y1: FLOOR, x2: width, y2: FLOOR }),
    shape("text", { x: 0, y: FLOOR - 8 }, words),
  ];
}

function acceptance(shares) {
  if (!shares.length) {
    const words = "no draft was tried yet";
    return { now: "", label: words, paint: (width) => empty(width, words) };
  }
  const shown = shares.slice(0, 16);
  const told = shown.map((share) => `${Math.round(share * 100)} %`);
  const paint = (width) => {
    const slot = Math.min(40, (width - LEFT) / shown.length);
    const bar = Math.max(4, slot - 6);
    return [
      ...scale(width, [[0, "0"], [0.5, "50"], [1, "100 %"]], 1),
      ...shown.flatMap((share, place) => {
        const x = LEFT + place * slot + (slot - bar) / 2;
        const tall = (FLOOR - TOP) * share;
        return [
          shape("rect", { class: "filled", x, y: FLOOR - tall, width: bar, height: tall }),
          shape("rect", { class: "frame", x, y: TOP, width: bar, height: FLOOR - TOP }),
          shape("text", { x: x + bar / 2, y: HEIGHT - 4, "text-anchor": "middle" }, String(place + 1)),
        ];
      }),
    ];
  };
  return { now: `first ${told[0]}`, label: `Accepted by position: ${told.join(", ")}`, paint };
}

function tokensPerStep(steps, mean) {
  if (!steps.length) return { now: "", label: "no step yet", paint: (width) => empty(width, "no step yet") };
  const most = Math.max(4, ...steps.map((step) => step.tokens));
  const paint = (width) => {
    const slot = Math.min(12, (width - LEFT) / Math.max(steps.length, 20));
    const high = (count) => ((FLOOR - TOP) * count) / most;
    const level = FLOOR - high(mean);
    return [
      ...scale(width, [[0, "0"], [most, String(most)]], most),
      ...steps.flatMap((step, place) => {
        const x = LEFT + place * slot;
        const accepted = Math.min(step.accepted_tokens, step.tokens);
        const own = step.tokens - accepted;
        const thick = Math.max(1, slot - 1.5);
        return [
          shape("rect", { class: "filled", x, y: FLOOR - high(accepted), width: thick, height: high(accepted) }),
          shape("rect", { class: "ink", x, y: FLOOR - high(accepted + own), width: thick, height: high(own) }),
        ];
      }),
      shape("line", { class: "mean", x1: LEFT, y1: level, x2: width, y2: level }),
    ];
  };
  return { now: `${mean.toFixed(2)} on average`, label: `Tokens per step: ${mean.toFixed(2)} on average`, paint };
}

function plan(steps) {
  if (!steps.length) return { now: "", label: "no step yet", paint: (width) => empty(width, "no step yet") };
  const widths = steps.map((step) => step.plan.width);
  const lookaheads = steps.map((step) => step.plan.lookahead);
  const { width: drafts, lookahead } = steps.at(-1).plan;
  const most = Math.max(4, ...widths, ...lookaheads);
  const paint = (width) => [
    ...scale(width, [[0, "0"], [most, String(most)]], most),
    line(width, widths, most, "line"),
    line(width, lookaheads, most, "dashes"),
  ];
  const now = `${drafts} a step, ${lookahead} ahead`;
  return { now, label: `Plan: ${drafts} drafts a step, drafter up to ${lookahead} tokens ahead`, paint };
}

function roundTrip(steps) {
  const trips = steps.map((step) => step.round_trip_ms);
  const known = trips.filter((trip) => trip !== null);
  if (!known.length) {
    const words = steps.length ? "no drafter takes part" : "no step yet";
    return { now: "", label: words, paint: (width) => empty(width, words) };
  }
  const most = ceiling(Math.max(...known));
  const paint = (width) => [
    ...scale(width, [[0, "0"], [most, milliseconds(most)]], most),
    line(width, trips, most, "line"),
  ];
  const newest = milliseconds(known.at(-1));
  return { now: newest, label: `Round trip to the nearest drafter: ${newest}`, paint };
}

/** Lines at some heights, with their numbers. */
function scale(width, marks, most) {
  return marks.flatMap(([value, words]) => {
    const y = FLOOR - ((FLOOR - TOP) * value) / most;
    return [
      shape("line", { class: "axis", x1: LEFT, y1: y, x2: width, y2: y }),
      shape("text", { x: LEFT - 5, y: y + 4, "text-anchor": "end" }, words),
    ];
  });
}

/** A line in steps, from one value to the next; values that are null are gaps. */
function line(width, values, most, kind) {
  const slot = (width - LEFT) / Math.max(values.length, 20);
  let path = "";
  let broken = true;
  values.forEach((value, place) => {
    if (value === null) {
      broken = true;
      return;
    }
    const y = (FLOOR - ((FLOOR - TOP) * value) / most).toFixed(1);
    path += `${broken ? "M" : "L"}${(LEFT + place * slot).toFixed(1)} ${y}H${(LEFT + (place + 1) * slot).toFixed(1)}`;
    broken = false;
  });
  return shape("path", { class: kind, d: path });
}

/** The next number of 1, 2 or 5 with zeros. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 0.01)));
  return [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= value);
}

/** With as many digits as mean something. */
export function milliseconds(value) {
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`;
  return `${value >= 10 ? Math.round(value) : Number(value.toPrecision(2))} ms`;
}
