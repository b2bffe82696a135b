// The text as a screen reader hears it: each part once, in sentences or lines, without the marks.

/** Ends of what is said in one breath; a part that grows long without one is said all the same. */
const END = /[.!?。！？][)"'”’]*\s|\n/g;
const LONGEST = 240;

export class SpokenText {
  /** `element`: a live region whose additions are read out, or one that is only there to be read. */
  constructor(element) {
    this.element = element;
    this.clear();
  }

  clear() {
    this.element.replaceChildren();
    this.held = "";
  }

  add(text) {
    this.held += text;
    const ends = [...this.held.matchAll(END)].map((found) => found.index + found[0].length);
    if (ends.length) this.#say(ends.at(-1));
    else if (this.held.length > LONGEST) this.#say(this.held.lastIndexOf(" ") + 1 || this.held.length);
  }

  /** Nothing more comes. */
  end() {
    this.#say(this.held.length);
  }

  #say(length) {
    if (!length) return;
    const part = document.createElement("span");
    part.textContent = this.held.slice(0, length);
    this.held = this.held.slice(length);
    this.element.append(part);
  }
}
