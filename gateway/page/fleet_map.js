// The fleet as a map: verifiers at the left, drafters as far to the right as their round trip is long.

import { milliseconds } from "/page/plots.js";
import { arc, drawing, shape } from "/page/svg.js";

const ROW = 52;
const TOP = 34;
const RADIUS = 13;
/** Pixels from the left edge: of the verifiers, and of the shortest round trip. */
const LEFT = 22;
const NEAREST = 0.34;
/** From the right edge to the longest round trip. */
const RIGHT = 26;
/** At most that wide is a letter of a name, and of the line below it. */
const LETTER = 7.8;
const SMALL = 6.4;
/** Below so many pixels verifiers have rows of their own, above the drafters: names side by side have no room. */
const NARROW = 560;

export class FleetMap {
  constructor(place, tables) {
    this.place = place;
    this.tables = tables;
    this.fleet = null;
    new ResizeObserver(() => this.#draw()).observe(place);
  }

  /** `fleet`: as the gateway tells it. */
  show(fleet) {
    if (JSON.stringify(fleet) === JSON.stringify(this.fleet)) return;
    this.fleet = fleet;
    this.#draw();
    this.tables.replaceChildren(...tablesOf(fleet));
  }

  #draw() {
    if (!this.fleet) return;
    const { verifiers, drafters } = this.fleet;
    const width = this.place.clientWidth || 640;
    const above = width < NARROW ? verifiers.length : 0;
    const rows = Math.max(1, drafters.length, above ? 1 : verifiers.length);
    const height = TOP + (above + rows) * ROW + 10;
    const distance = scaleOf(drafters, width);
    const spread = (place, count) => TOP + above * ROW + (rows * ROW * (place + 0.5)) / Math.max(1, count);
    const row = (place) => TOP + ROW * (place + 0.5);
    const points = verifiers.map((_, place) => ({ x: LEFT, y: above ? row(place) : spread(place, verifiers.length) }));
    const shapes = [...axis(distance, height)];
    drafters.forEach((drafter, place) => {
      const at = { x: distance.of(drafter.round_trip_ms), y: spread(place, drafters.length) };
      for (const verifier of drafter.drafts_for) shapes.push(link(points[verifier], at, drafter.sessions > 0));
    });
    verifiers.forEach((verifier, place) => shapes.push(...member(verifier, points[place], "target", { beside: above > 0 })));
    drafters.forEach((drafter, place) => {
      const at = { x: distance.of(drafter.round_trip_ms), y: spread(place, drafters.length) };
      shapes.push(...member(drafter, at, "helper", { turned: at.x + RADIUS + 8 + wide(drafter) > width }));
    });
    if (!drafters.length) {
      shapes.push(shape("text", { class: "name", x: width * NEAREST, y: spread(0, 1) + 4 }, "No drafter is there."));
    }
    this.place.replaceChildren(drawing(width, height, labelOf(this.fleet), shapes));
  }
}

/** Round trips in milliseconds to pixels, by their logarithm; what is not measured yet stands at the left end. */
function scaleOf(drafters, width) {
  const known = drafters.map((drafter) => drafter.round_trip_ms).filter((trip) => trip !== null);
  const lowest = Math.floor(Math.log10(Math.max(0.01, Math.min(1, ...known))));
  const highest = Math.max(lowest + 2, Math.ceil(Math.log10(Math.max(1, ...known))));
  const [from, to] = [width * NEAREST, width - RIGHT];
  const of = (trip) => {
    const share = trip === null ? 0 : (Math.log10(Math.max(trip, 0.01)) - lowest) / (highest - lowest);
    return from + (to - from) * Math.min(1, Math.max(0, share));
  };
  const marks = [];
  for (let power = lowest; power <= highest; power += 1) marks.push(10 ** power);
  return { of, marks };
}

function axis({ of, marks }, height) {
  return marks.flatMap((mark) => [
    shape("line", { class: "axis", x1: of(mark), y1: 20, x2: of(mark), y2: height }),
    shape("text", { x: of(mark), y: 12, "text-anchor": "middle" }, milliseconds(mark)),
  ]);
}

/** From a verifier to a drafter that drafts for it. */
function link(from, to, busy) {
  const bend = (from.x + to.x) / 2;
  const path = `M${from.x} ${from.y}C${bend} ${from.y} ${bend} ${to.y} ${to.x} ${to.y}`;
  return shape("path", { class: busy ? "link busy" : "link", d: path });
}

/** A circle with its sessions in it, its load around it, and its name beside it: at its right, `turned` at its left; that
 * of a verifier is below it where there is room. */
function member(one, { x, y }, kind, { turned = false, beside = kind === "helper" }) {
  const group = shape("g", { class: `one ${kind}` });
  group.append(shape("circle", { class: "node", cx: x, cy: y, r: RADIUS }));
  if (one.max_sessions && one.sessions) group.append(arc(x, y, RADIUS, one.sessions / one.max_sessions, "load"));
  group.append(shape("text", { class: "count", x, y: y + 4 }, String(one.sessions)));
  const next = turned ? x - RADIUS - 8 : x + RADIUS + 8;
  const at = beside ? { x: next, y: y - 2 } : { x: x - RADIUS, y: y + RADIUS + 16 };
  const anchor = turned ? "end" : "start";
  group.append(shape("text", { class: "name", ...at, "text-anchor": anchor }, shortened(one.name)));
  const second = { x: at.x, y: at.y + 15 };
  group.append(shape("text", { class: "detail", ...second, "text-anchor": anchor }, detailOf(one)));
  return [group];
}

/** Pixels that the words beside a drafter take at most: where they would not fit, they turn to its left. */
function wide(one) {
  return Math.max(shortened(one.name).length * LETTER, detailOf(one).length * SMALL);
}

function shortened(name) {
  return name.length > 24 ? `${name.slice(0, 23)}…` : name;
}

function detailOf(one) {
  if (one.drafts_for === undefined) {
    const speed = one.tokens_per_second === null ? [] : [`${one.tokens_per_second.toFixed(1)} tokens/s`];
    return [...speed, ...(one.draining ? ["draining"] : [])].join(" · ");
  }
  const trip = one.round_trip_ms === null ? "not measured" : milliseconds(one.round_trip_ms);
  const rate = one.acceptance_rate === null ? [] : [`${Math.round(one.acceptance_rate * 100)} % accepted`];
  return [trip, ...rate].join(" · ");
}

function labelOf({ verifiers, drafters }) {
  const drafting = drafters.map((drafter) => {
    const whom = drafter.drafts_for.map((place) => verifiers[place].name).join(" and ") || "nobody";
    return `${drafter.name} drafts for ${whom}, ${detailOf(drafter)}`;
  });
  const serving = verifiers.map((verifier) => `${verifier.name} serves ${sessions(verifier)}`);
  return `The fleet: ${[...serving, ...drafting].join("; ") || "nobody is there"}.`;
}

function sessions(one) {
  const most = one.max_sessions ? ` of ${one.max_sessions}` : "";
  return `${one.sessions}${most} ${one.sessions === 1 && !most ? "session" : "sessions"}`;
}

function tablesOf({ verifiers, drafters }) {
  const shown = (value, words) => (value === null ? "–" : words(value));
  const load = (one) => (one.max_sessions ? `${one.sessions} of ${one.max_sessions}` : String(one.sessions));
  return [
    table("Verifiers", ["Name", "Model", "Sessions", "Tokens per second"], verifiers.map((one) => [
      one.name, one.model, load(one), shown(one.tokens_per_second, (speed) => speed.toFixed(1)),
    ])),
    table("Drafters", ["Name", "Model", "Drafts for", "Sessions", "Round trip", "Per token", "Accepted"], drafters.map((one) => [
      one.name, one.model, one.drafts_for.map((place) => verifiers[place].name).join(", ") || "–", load(one),
      shown(one.round_trip_ms, milliseconds), shown(one.ms_per_token, milliseconds),
      shown(one.acceptance_rate, (rate) => `${Math.round(rate * 100)} %`),
    ])),
  ];
}

function table(title, headings, rows) {
  const element = document.createElement("table");
  element.createCaption().textContent = title;
  const head = element.createTHead().insertRow();
  for (const heading of headings) cell(head, "th", heading).scope = "col";
  const body = element.createTBody();
  for (const [name, ...values] of rows) {
    const row = body.insertRow();
    cell(row, "th", name).scope = "row";
    for (const value of values) cell(row, "td", value);
  }
  return element;
}

function cell(row, kind, text) {
  const element = document.createElement(kind);
  element.textContent = text;
  row.append(element);
  return element;
}
