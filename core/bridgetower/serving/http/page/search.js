// One search at a time: recalled while a person types, verified when they pause, page by page as they scroll.

import { events, Fault, json, pause, wait } from "/page/api.js";
import { bodyOf } from "/page/state.js";

const FEW = 60; // hits while a person types
const PAGE = 250; // hits of a page
const ASLEEP_S = 60; // after which the model may have been let go

let stop = null; // of the search that runs
let more = null; // the promise of the next page
let lastAnswer = -Infinity;
let lacksHead = false;

export const found = { hits: [], cursor: null, asked: null, answer: null };

// `tell` gets what there is: {stage, ...}; stages are "waiting", "asleep", "recalled", "verified", "result", "more",
// "again", "trouble" (a Fault, after which it goes on in `seconds`) and "failed" (a Fault).
let tell = () => {};
export const install = (given) => (tell = given);

export function cancel() {
  stop?.abort();
  stop = more = found.cursor = null;
}

// Milliseconds that recall took of late: where it is fast, each key asks.
export let recall_ms = 0;

export async function run(asked, { typing = false } = {}) {
  cancel();
  const { signal } = (stop = new AbortController());
  try {
    await patiently(signal, async () => {
      tell({ stage: "waiting" });
      await sayIfAsleep(signal);
      await (typing ? recalled(asked, signal) : verified(asked, signal));
    });
  } catch (error) {
    fail(error, signal);
  }
}

function fail(error, signal) {
  if (error.name === "AbortError" || signal.aborted) return;
  if (!(error instanceof Fault)) throw error;
  tell({ stage: "failed", fault: error });
}

// Run `work` until it succeeds, waiting where the server is busy or gone.
async function patiently(signal, work) {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (error.code === "no_head" && !lacksHead) {
        lacksHead = true;
        lastAnswer = performance.now();
        continue;
      }
      const seconds = signal.aborted ? null : wait(error);
      if (seconds === null) throw error;
      lastAnswer = -Infinity;
      tell({ stage: "trouble", fault: error, seconds });
      await pause(seconds, signal);
    }
  }
}

async function sayIfAsleep(signal) {
  if (performance.now() - lastAnswer < ASLEEP_S * 1000) return;
  const status = await json("/status", { signal });
  if (!status.awake) tell({ stage: "asleep" });
  lacksHead = false; // the server may have another model by now
}

async function recalled(asked, signal) {
  const began = performance.now();
  const answer = await json("/search", { body: bodyOf(asked, { top: FEW, depth: 0 }), signal });
  recall_ms = performance.now() - began;
  lastAnswer = performance.now();
  take(asked, answer);
  found.cursor = null;
  tell({ stage: "recalled", typing: true });
}

async function verified(asked, signal) {
  const body = bodyOf(asked, lacksHead ? { top: PAGE, depth: 0 } : { top: PAGE });
  for await (const [name, value] of events("/search", body, signal)) {
    lastAnswer = performance.now();
    if (name === "result") take(asked, value);
    else found.hits = value.hits;
    tell({ stage: name, done: value.done, total: value.total, lacksHead });
  }
}

function take(asked, answer) {
  Object.assign(found, { asked, answer, hits: answer.hits, cursor: answer.cursor });
}

// Ask the next page, unless that is asked already or there is none.
export function next() {
  if (more !== null || found.cursor === null) return;
  const { signal } = stop;
  const mine = (more = patiently(signal, () => page(signal))
    .then(
      () => tell({ stage: "more" }),
      (error) => {
        found.cursor = null;
        fail(error, signal);
      },
    )
    .finally(() => {
      if (more === mine) more = null;
    }));
}

async function page(signal) {
  let answer;
  try {
    answer = await json("/search", { body: { cursor: found.cursor }, signal });
  } catch (error) {
    if (error.status !== 410) throw error;
    await again(signal);
    return;
  }
  lastAnswer = performance.now();
  found.hits = found.hits.concat(answer.hits);
  found.cursor = answer.cursor;
}

// Ask as at first, and go to a page beyond those that are there.
async function again(signal) {
  tell({ stage: "again" });
  const body = bodyOf(found.asked, lacksHead ? { top: PAGE, depth: 0 } : { top: PAGE });
  const first = await json("/search", { body, signal });
  let { hits, cursor } = first;
  while (cursor !== null && hits.length <= found.hits.length) {
    const answer = await json("/search", { body: { cursor }, signal });
    hits = hits.concat(answer.hits);
    cursor = answer.cursor;
  }
  Object.assign(found, { answer: first, hits, cursor });
}
