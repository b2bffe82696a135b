// A text with the marks of who wrote it. Text goes in as text only: what a model writes never becomes markup.

/** Characters of a rejected guess that are shown. */
const LONGEST_GUESS = 48;
/** Line breaks of a guess that did not come true must not break the lines of the text. */
const BREAKS = /\r?\n/g;

export class MarkedText {
  /** `element` is hidden from screen readers: `SpokenText` is what they hear. */
  constructor(element) {
    this.element = element;
    this.clear();
  }

  clear() {
    this.element.replaceChildren();
    this.last = null;
    this.plain = "";
  }

  /** What the text goes on from, which nobody wrote here. */
  begin(prompt) {
    this.clear();
    if (prompt) this.element.append(piece("span", "prompt", prompt));
  }

  /** What one step committed, and its guess that was not accepted, which stands before the target's own last token. */
  add(runs, rejected) {
    const accepted = runs.findLastIndex((run) => run.source !== "target") + 1;
    for (const run of runs.slice(0, accepted)) this.#append(run.source, run.text);
    if (rejected) this.#reject(rejected.text);
    for (const run of runs.slice(accepted)) this.#append("own", run.text);
  }

  #append(source, text) {
    this.plain += text;
    if (this.last?.className === source) {
      this.last.firstChild.appendData(text);
      return;
    }
    this.last = piece("span", source, text);
    this.element.append(this.last);
  }

  #reject(text) {
    const shown = text.replace(BREAKS, "⏎");
    const cut = shown.length > LONGEST_GUESS ? `${shown.slice(0, LONGEST_GUESS)}…` : shown;
    this.element.append(piece("del", "rejected", cut));
    this.last = null;
  }
}

function piece(name, kind, text) {
  const element = document.createElement(name);
  element.className = kind;
  element.append(document.createTextNode(text));
  return element;
}
