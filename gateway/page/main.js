// The page: what a person does, and what follows from it.

import { ApiKey } from "/page/api_key.js";
import { Conversation } from "/page/conversation.js";
import { Figures } from "/page/figures.js";
import { FleetMap } from "/page/fleet_map.js";
import { Lane } from "/page/lane.js";
import { Plots } from "/page/plots.js";
import { requestOf, seedOf } from "/page/request.js";
import { fetched } from "/page/stream.js";

/** Milliseconds between two looks at the fleet. */
const FLEET_EVERY = 2000;
const COMPARISONS = {
  no: "",
  turns: "First with drafters, then without: both clocks are fair.",
  together: "Both at once: they share the machine, so each slows the other.",
};

const at = (id) => document.getElementById(id);
const form = at("composer");
const drafted = new Lane(at("lane-drafted"));
const alone = new Lane(at("lane-alone"));
const figures = new Figures();
const plots = new Plots(figures);
const fleet = new FleetMap(at("map"), at("fleet-tables"));
const key = new ApiKey(at("key-form"), () => begin());
const conversation = new Conversation({
  turns: at("turns"), prompt: at("prompt"), label: at("prompt-label"), afresh: at("afresh"),
});
/** Of the texts that are written now. */
let running = null;
let looking = false;

async function begin() {
  try {
    const { data } = await fetched("/v1/models", key.value);
    key.accepted();
    at("model").replaceChildren(...data.map((model) => new Option(model.id, model.id)));
    say("");
    showProblem(null);
    await lookAtFleet();
  } catch (error) {
    tell(error);
  }
}

async function lookAtFleet() {
  if (looking) return;  // a browser has few connections, and texts need one
  looking = true;
  try {
    fleet.show(await fetched("/dragoman/fleet", key.value));
    at("fleet-note").textContent = "Who drafts for whom; the further right, the longer the round trip.";
  } catch (error) {
    if (error.status !== 401) at("fleet-note").textContent = `Not to be seen now: ${error.message}.`;
  } finally {
    looking = false;
  }
}

async function write() {
  if (running) return;
  running = new AbortController();
  const { signal } = running;
  const compare = at("compare").value;
  const question = at("prompt").value;
  const chat = conversation.mode === "chat";
  const asked = { turns: conversation.turns, question, seed: seedOf(form) };
  prepare(compare !== "no", chat ? "" : question);
  if (chat) conversation.asked(question);
  const withDrafters = () => drafted.write(requestOf(form, { ...asked, draft: true }), key.value, signal, (told) => {
    figures.add(told);
    plots.draw();
  });
  const without = () => alone.write(requestOf(form, { ...asked, draft: false }), key.value, signal);
  try {
    const [first, second] = await both(withDrafters, compare === "no" ? null : without, compare === "together");
    say(`Written: ${first.tokens} tokens in ${seconds(first)}.`);
    if (second) at("verdict").textContent = verdictOf(first, second);
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else tell(error);
  } finally {
    running.abort(); // where one of two failed, the other ends
    running = null;
    if (chat) conversation.answered(question, drafted.text);
    buttons(false);
  }
}

/** Both texts, or only the first. */
async function both(first, second, together) {
  if (!second) return [await first()];
  if (together) return Promise.all([first(), second()]);
  const found = await first();
  return [found, await second()];
}

function prepare(compared, prompt) {
  at("lanes").classList.toggle("both", compared);
  at("lane-alone").hidden = !compared;
  at("drafted-title").textContent = compared ? "With drafters" : "The text";
  at("verdict").textContent = "";
  drafted.clear(prompt);
  alone.clear(prompt);
  figures.clear();
  plots.draw();
  showProblem(null);
  say("Writing.");
  buttons(true);
}

function buttons(writing) {
  const within = document.activeElement === at(writing ? "write" : "stop");
  at("write").disabled = writing;
  at("stop").disabled = !writing;
  // Who works with the keyboard stays where he was, instead of losing his place with a button that went dead.
  if (within) at(writing ? "stop" : "write").focus();
}

function verdictOf(first, second) {
  const same = drafted.text === alone.text ? "Both texts are the same" : "The texts differ";
  const ratio = second.milliseconds / first.milliseconds;
  const speed = ratio >= 1 ? `${ratio.toFixed(2)} times as fast` : `${(1 / ratio).toFixed(2)} times slower`;
  return `${same}. With drafters it was ${speed}: ${seconds(first)} against ${seconds(second)}.`;
}

function seconds({ milliseconds }) {
  return `${(milliseconds / 1000).toFixed(2)} s`;
}

function say(words) {
  at("status").textContent = words;
}

function showProblem(words) {
  at("problem").hidden = !words;
  at("problem").textContent = words ?? "";
}

function tell(error) {
  say("");
  if (error.status === 401 || error.status === 403) key.refused(error.message);
  else showProblem(`${error.message}.`);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  write();
});
form.addEventListener("invalid", () => { at("settings").open = true; }, true);
at("stop").addEventListener("click", () => running?.abort());
at("afresh").addEventListener("click", () => {
  conversation.forget();
  at("prompt").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
for (const choice of form.elements.mode) {
  choice.addEventListener("change", () => conversation.switchTo(choice.value));
}
at("compare").addEventListener("change", () => {
  at("compare-note").textContent = COMPARISONS[at("compare").value];
  at("compare-note").hidden = at("compare").value === "no";
});
at("show-rejected").addEventListener("change", (event) => {
  at("lanes").classList.toggle("bare", !event.target.checked);
});
setInterval(() => {
  if (document.hidden || !at("key-form").hidden) return;
  if (running || at("model").options.length) lookAtFleet();
  else begin(); // the model was still being loaded
}, FLEET_EVERY);
plots.draw();
begin();
