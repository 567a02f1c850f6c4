// Small pictures by id: few requests at a time, those that are wanted now first, and a bounded number kept.

import { ask, Fault, pause, wait } from "/page/api.js";

const AT_A_TIME = 4; // a browser has six connections to a server; searches need theirs
const KEPT = 600;
const TRIES = 5;

const kept = new Map(); // key -> object URL, the least recently used first
const wanted = new Map(); // key -> {id, side, takers, stop}, the newest last
const loading = new Map();

const side = (width) => (width * devicePixelRatio > 260 ? 512 : 256);

// Call `take(url)` when there is a picture for `id`, or `take(null)` if there is none; return a function that gives up.
export function picture(id, width, take) {
  const key = `${id}-${side(width)}`;
  const url = kept.get(key);
  if (url !== undefined) {
    kept.delete(key);
    kept.set(key, url);
    take(url);
    return () => {};
  }
  let entry = wanted.get(key) ?? loading.get(key);
  if (entry === undefined) {
    entry = { key, id, side: side(width), takers: new Set(), stop: null };
    wanted.set(key, entry);
  }
  entry.takers.add(take);
  queueMicrotask(next);
  return () => {
    entry.takers.delete(take);
    if (entry.takers.size) return;
    for (const map of [wanted, loading]) if (map.get(key) === entry) map.delete(key); // the next one begins afresh
    entry.stop?.abort();
  };
}

function next() {
  while (loading.size < AT_A_TIME && wanted.size) {
    const [key, entry] = wanted.entries().next().value;
    wanted.delete(key);
    loading.set(key, entry);
    load(entry).finally(() => {
      if (loading.get(key) === entry) loading.delete(key);
      next();
    });
  }
}

async function load(entry) {
  const { signal } = (entry.stop = new AbortController());
  const url = await fetched(`/thumbs/${entry.id}?w=${entry.side}`, signal).catch(() => null);
  if (signal.aborted) {
    if (url !== null) URL.revokeObjectURL(url);
    return;
  }
  if (url !== null) {
    kept.set(entry.key, url);
    if (kept.size > KEPT) {
      const [oldest, gone] = kept.entries().next().value;
      kept.delete(oldest);
      URL.revokeObjectURL(gone);
    }
  }
  for (const take of entry.takers) take(url);
}

// Return the object URL of a picture. Throw Fault where it is not there, AbortError.
export async function fetched(path, signal) {
  for (let tries = 1; ; tries++) {
    try {
      return URL.createObjectURL(await (await ask(path, { signal })).blob());
    } catch (error) {
      const seconds = wait(error);
      if (tries === TRIES || seconds === null || !(error instanceof Fault)) throw error;
      await pause(seconds, signal);
    }
  }
}
