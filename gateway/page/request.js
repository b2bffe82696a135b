// What the form asks for, as a body of the API.

/** Seeds that a number of JavaScript holds exactly. */
const LARGEST_SEED = Number.MAX_SAFE_INTEGER;

/** A route and a body. `question`: the prompt, or what is said after the `turns` of a conversation; `seed`: of the text;
 * `draft`: whether drafters may help. */
export function requestOf(form, { turns, question, seed, draft }) {
  const value = (name) => form.elements[name].value;
  const chat = value("mode") === "chat";
  const body = {
    model: value("model") || undefined,
    stream: true,
    stream_options: { include_usage: true, include_speculation: true },
    max_tokens: Number(value("max_tokens")),
    temperature: Number(value("temperature")),
    top_p: Number(value("top_p")),
    rule: value("rule"),
    seed,
    draft,
  };
  if (!chat) return { path: "/v1/completions", body: { ...body, prompt: question } };
  const system = value("system").trim();
  const messages = [
    ...(system ? [{ role: "system", content: system }] : []),
    ...turns,
    { role: "user", content: question },
  ];
  return { path: "/v1/chat/completions", body: { ...body, messages } };
}

/** The seed that is written in the form, or one of its own for every text. */
export function seedOf(form) {
  const written = form.elements.seed.value;
  return written === "" ? Math.floor(Math.random() * LARGEST_SEED) : Number(written);
}
