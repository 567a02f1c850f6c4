// Requests to the server: the token, faults as one kind of error, events, and how long to wait for a server that is
// busy or gone.

const KEY = "bt-token";
const TOKEN = /^[!-~]{16,512}$/; // as in `bt serve`; a header takes no other signs
export const SILENT_S = 2; // between two tries to reach a server that does not answer

export class Fault extends Error {
  constructor(status, code, message, retryAfter = null) {
    super(message);
    this.status = status; // 0: the server does not answer
    this.code = code;
    this.retryAfter = retryAfter; // seconds
  }
}

let token = sessionStorage.getItem(KEY);

export const hasToken = () => token !== null;

export function setToken(given) {
  token = given;
  if (given === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, given);
}

// Return the response of a request; throw Fault, or AbortError.
export async function ask(path, { signal, headers = {}, body } = {}) {
  if (token !== null && !TOKEN.test(token)) throw new Fault(401, "no_token", "this is not the token of the server");
  if (token !== null) headers = { ...headers, Authorization: `Bearer ${token}` };
  const given = body instanceof FormData ? { body } : body && { body: JSON.stringify(body) };
  if (body && !(body instanceof FormData)) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", signal, headers, ...given, redirect: "error" });
  } catch (error) {
    throw unanswered(error);
  }
  if (response.ok) return response;
  let error = { code: "refused", message: `the server answered ${response.status}` };
  try {
    error = (await response.json()).error ?? error;
  } catch { /* a proxy answers in its own form */ }
  const after = Number(response.headers.get("Retry-After"));
  throw new Fault(response.status, error.code, error.message, after > 0 ? after : null);
}

function unanswered(error) {
  return error.name === "AbortError" ? error : new Fault(0, "gone", "the server does not answer");
}

export async function json(path, options) {
  const response = await ask(path, options);
  try {
    return await response.json();
  } catch (error) {
    throw unanswered(error);
  }
}

// Yield [name, value] of each event of a POST. Throw Fault where the stream ends before its result.
export async function* events(path, body, signal) {
  const response = await ask(path, { body, signal, headers: { Accept: "text/event-stream" } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      throw unanswered(error);
    }
    if (piece.done) throw new Fault(0, "gone", "the server does not answer");
    rest += piece.value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = /^event: (\w+)\ndata: (.*)$/s.exec(block);
      if (event === null) continue; // a beat
      const value = JSON.parse(event[2]);
      if (event[1] === "error") {
        const { code, message } = value.error; // the status is that of the stream
        throw new Fault(code === "draining" ? 503 : 500, code, message);
      }
      yield [event[1], value];
      if (event[1] === "result") return;
    }
  }
}

// Seconds after which a request may be sent again; null where that would help nothing.
export function wait(fault) {
  if (!(fault instanceof Fault)) return null;
  if (fault.status === 0) return SILENT_S;
  return fault.status === 429 || fault.status === 503 ? Math.min(fault.retryAfter ?? 5, 60) : null;
}

export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}
