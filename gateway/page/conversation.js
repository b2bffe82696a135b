// A conversation: what was said before, and what a person writes now. A text that is continued has none.

const WORDS = {
  completion: { label: "Text to continue", prompt: "def fibonacci(n):\n    " },
  chat: { label: "Your message", prompt: "What does a dragoman do? Answer in three sentences." },
};

export class Conversation {
  constructor({ turns, prompt, label, afresh }) {
    Object.assign(this, { list: turns, prompt, label, afresh });
    this.mode = "completion";
    this.written = { completion: WORDS.completion.prompt, chat: WORDS.chat.prompt };
    this.turns = [];
    this.prompt.value = this.written.completion;
  }

  /** "completion" or "chat"; each keeps what was being written in it. */
  switchTo(mode) {
    this.written[this.mode] = this.prompt.value;
    this.mode = mode;
    this.prompt.value = this.written[mode];
    this.label.textContent = WORDS[mode].label;
    this.#show();
  }

  /** A question is on its way: it moves from the field into the conversation. */
  asked(question) {
    this.prompt.value = "";
    this.#show([...this.turns, { role: "user", content: question }]);
  }

  /** As far as the answer came, it stays in the conversation; without any, the question is back in its field. */
  answered(question, answer) {
    if (answer) this.turns.push({ role: "user", content: question }, { role: "assistant", content: answer });
    else if (!this.prompt.value) this.prompt.value = question;
    this.#show();
  }

  forget() {
    this.turns = [];
    this.#show();
  }

  /** The last answer is not among them: it stands below, with its marks, until the next question comes. */
  #show(turns = this.turns.slice(0, -1)) {
    const chats = this.mode === "chat" && turns.length > 0;
    this.list.hidden = this.afresh.hidden = !chats;
    this.list.replaceChildren(...turns.map(({ role, content }) => {
      const turn = document.createElement("li");
      const who = document.createElement("b");
      who.textContent = role === "user" ? "You" : "Model";
      const words = document.createElement("span");
      words.textContent = content;
      turn.append(who, words);
      return turn;
    }));
  }
}
