// The key that the gateway may ask for. It is kept for this tab alone.

const NAME = "dragoman-api-key";

export class ApiKey {
  /** `onGiven`: told when somebody gives one. */
  constructor(form, onGiven) {
    this.form = form;
    this.field = form.querySelector("input");
    this.problem = form.querySelector("[role=alert]");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(NAME, this.field.value.trim());
      this.field.value = "";
      onGiven();
    });
  }

  get value() {
    return sessionStorage.getItem(NAME) ?? "";
  }

  /** The gateway took it, or needs none. */
  accepted() {
    this.form.hidden = true;
    this.problem.textContent = "";
  }

  /** The gateway refused it, or the lack of one. `words`: the gateway's own. */
  refused(words) {
    const shown = !this.form.hidden;
    this.form.hidden = false;
    this.problem.textContent = this.value ? `This key does not do: ${words}.` : "Give the key that you were given for this gateway.";
    if (!shown || document.activeElement === document.body) this.field.focus();
  }
}
