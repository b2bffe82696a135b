// A text from the gateway, event by event, as OpenAI's API streams it.

/** What the gateway refused; `status` is that of HTTP, 0 where a stream broke off. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The JSON at a path. Throws Refused, with the gateway's own words. */
export async function fetched(path, key) {
  const response = await answer(path, { headers: headers(key) });
  return response.json();
}

/** The chunks of a text, until it is whole. `signal` ends it. Throws Refused. */
export async function* streamed(path, body, key, signal) {
  const response = await answer(path, {
    method: "POST",
    headers: { ...headers(key), "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refused(chunk.error.message, 0);
    yield chunk;
  }
  throw new Refused("the stream ended before the text was whole", 0);
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the gateway does not answer", 0);
  }
  if (response.ok) return response;
  throw new Refused(await reason(response), response.status);
}

async function reason(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the gateway answers with status ${response.status}`;
  }
}

function headers(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** The data of server-sent events. */
async function* events(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      held += decoder.decode(value, { stream: true });
      const whole = held.split("\n\n");
      held = whole.pop();
      for (const event of whole) {
        if (event.startsWith("data: ")) yield event.slice("data: ".length);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
