// One picture, as large as the window.

import { ask, hasToken } from "/page/api.js";
import { fetched } from "/page/pictures.js";
import { byId, make, moment, nameOf, percent } from "/page/words.js";

const LARGE = 2048; // pixels
const dialog = byId("view"), large = byId("large");
const [nothing, name, paths, facts, said, place] = ["nothing", "name", "paths", "facts", "said", "place"].map(byId);
const [previous, next, original, revealButton] = ["previous", "next", "original", "reveal"].map(byId);
let pictures; // {hit(at), length(), more()}
let at = 0;
let current = null; // the hit that is shown, whatever list is behind it
let stop = null;
let shown = null; // the object URL
let isLeft = false; // for another search

// `like(hit)` searches by a picture; `closed(at)` gets the place of the last one.
export function install(given) {
  pictures = given.pictures;
  byId("close").addEventListener("click", () => dialog.close());
  previous.addEventListener("click", () => go(at - 1));
  next.addEventListener("click", () => go(at + 1));
  byId("like").addEventListener("click", () => {
    leave();
    given.like(current);
  });
  revealButton.addEventListener("click", reveal);
  original.addEventListener("click", openOriginal);
  dialog.addEventListener("close", () => {
    stop?.abort();
    if (!isLeft) given.closed(at);
    isLeft = false;
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") go(at - 1);
    else if (event.key === "ArrowRight") go(at + 1);
    else return;
    event.preventDefault();
  });
}

export const setReveals = (reveals) => (revealButton.hidden = !reveals);

export const isOpen = () => dialog.open;

export function open(given) {
  go(given);
  if (!dialog.open) dialog.showModal();
  byId("close").focus();
}

// Close the view without a return to the place of the picture in the list.
export function leave() {
  if (!dialog.open) return;
  isLeft = true;
  dialog.close();
}

// Show the place of the picture again after the order of all has changed.
export function refresh() {
  if (!dialog.open) return;
  for (let index = 0; index < pictures.length(); index++) {
    if (pictures.hit(index).id !== current.id) continue;
    at = index;
    describe(pictures.hit(at));
    return;
  }
}

function go(to) {
  if (to < 0 || to >= pictures.length()) return;
  at = to;
  const hit = pictures.hit(at);
  said.textContent = "";
  describe(hit);
  load(hit);
  if (at > pictures.length() - 5) pictures.more();
}

function describe(hit) {
  current = hit;
  name.textContent = nameOf(hit.path);
  place.textContent = `${at + 1} of ${pictures.length()}`;
  previous.disabled = at === 0;
  next.disabled = at >= pictures.length() - 1;
  paths.replaceChildren(...hit.paths.map((path) => make("li", {}, make("span", {}, path),
    make("button", { type: "button", "aria-label": `Copy the path ${path}`, onclick: () => copy(path) }, "Copy"))));
  const rows = [
    ["Match", hit.verified ? percent(hit.match) : "unverified"],
    ["Similarity", hit.similarity === null ? null : hit.similarity.toFixed(3)],
    ["Taken", hit.taken_at && moment(hit.taken_at)],
    ["Size", hit.width && `${hit.width} × ${hit.height} pixels`],
    ["Files", hit.paths.length > 1 ? `${hit.paths.length} of the same content` : null],
  ];
  facts.replaceChildren(...rows.filter(([, value]) => value).flatMap(([term, value]) =>
    [make("dt", {}, term), make("dd", {}, value)]));
  original.href = `/images/${hit.id}`;
}

async function load(hit) {
  stop?.abort();
  const { signal } = (stop = new AbortController());
  large.alt = nameOf(hit.path);
  nothing.hidden = true;
  try {
    const url = await fetched(`/thumbs/${hit.id}?w=${LARGE}`, signal);
    if (signal.aborted) {
      URL.revokeObjectURL(url);
      return;
    }
    if (shown) URL.revokeObjectURL(shown);
    large.src = shown = url;
    large.hidden = false;
  } catch (error) {
    if (signal.aborted) return;
    large.hidden = true;
    nothing.hidden = false;
  }
}

async function copy(path) {
  try {
    await navigator.clipboard.writeText(path);
    said.textContent = "The path is copied.";
  } catch { // browsers lend the clipboard to https and to this machine alone
    const span = [...paths.querySelectorAll("span")].find((one) => one.textContent === path);
    getSelection().selectAllChildren(span);
    said.textContent = "The path is selected: copy it with Ctrl+C.";
  }
}

async function reveal() {
  try {
    await ask(`/images/${current.id}/reveal`, { body: {} });
    said.textContent = "The folder is opened on this machine.";
  } catch (error) {
    said.textContent = `The folder cannot be opened: ${error.message}.`;
  }
}

async function openOriginal(event) {
  if (!hasToken()) return;
  event.preventDefault(); // a link carries no token
  try {
    const link = make("a", { href: await fetched(original.getAttribute("href")), download: name.textContent });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    said.textContent = `The file cannot be read: ${error.message}.`;
  }
}
