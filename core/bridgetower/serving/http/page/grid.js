// The pictures as a grid, of which only the rows in sight are in the document. Elements are used again for other
// pictures; one keeps its picture while that is in sight, so that it moves when the order changes.

import { picture } from "/page/pictures.js";
import { byId, make, nameOf, percent } from "/page/words.js";

const FITS = 0.5; // as in `bt search`
const CAPTION = 26; // as in page.css
const LEAST_WIDTH = 172;
const LEAST_NARROW = 140; // for two columns at 360 pixels
const ROWS_BEYOND = 2; // above and below those in sight
const NEAR = 4; // windows before the end, at which more is asked
const MOVES_MS = 260;

const root = byId("grid");
let hits = [];
let isPartial = false;
let tiles = new Map(); // key -> tile
let free = [];
let columns = 1, width = 0, height = 0, gap = 12, top = 0;
let active = 0; // the tile that Tab leads to
let asked = false; // for a frame
let handlers = { open() {}, more() {} };

const keyOf = (hit) => hit.id;

export function install(given) {
  handlers = given;
  addEventListener("scroll", soon, { passive: true });
  new ResizeObserver(() => {
    measure();
    soon();
  }).observe(root.parentElement);
  root.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (tile) handlers.open(tile.at);
  });
  root.addEventListener("keydown", onKey);
  root.addEventListener("focusin", (event) => {
    const tile = event.target.closest(".tile");
    if (tile && tile.at !== active) setActive(tile.at);
  });
}

// Show these hits. With `partial`, more follow at the end.
export function show(given, { partial = false, animated = false, fromStart = false } = {}) {
  const focused = root.contains(document.activeElement) ? hits[active] && keyOf(hits[active]) : null;
  hits = given;
  isPartial = partial;
  root.hidden = hits.length === 0;
  if (fromStart) active = 0;
  if (focused !== null && !fromStart) { // the focus stays on its picture
    const at = hits.findIndex((hit) => keyOf(hit) === focused);
    active = at < 0 ? 0 : at;
  }
  active = Math.max(0, Math.min(active, hits.length - 1));
  if (animated) {
    root.classList.add("moving");
    clearTimeout(root.timer);
    root.timer = setTimeout(() => root.classList.remove("moving"), MOVES_MS);
  }
  measure();
  draw();
}

export function focus(at = active) {
  if (!hits.length) return;
  setActive(Math.max(0, Math.min(at, hits.length - 1)));
  reveal(active);
  draw();
  tiles.get(keyOf(hits[active]))?.focus({ preventScroll: true });
}

export const length = () => hits.length;
export const hit = (at) => hits[at];

function measure() {
  if (root.hidden) return;
  const inside = root.clientWidth;
  const narrow = inside < 500;
  gap = narrow ? 8 : 12;
  columns = Math.max(1, Math.floor((inside + gap) / ((narrow ? LEAST_NARROW : LEAST_WIDTH) + gap)));
  width = Math.floor((inside - gap * (columns - 1)) / columns); // a whole number, so that texts are sharp
  height = width + CAPTION;
  top = root.getBoundingClientRect().top + scrollY;
  root.style.height = `${Math.ceil(hits.length / columns) * (height + gap)}px`;
}

function soon() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
  });
}

function draw() {
  if (root.hidden) {
    for (const key of [...tiles.keys()]) release(key);
    return;
  }
  const step = height + gap;
  const from = Math.max(0, Math.floor((scrollY - top) / step) - ROWS_BEYOND) * columns;
  const to = Math.min(hits.length, (Math.ceil((scrollY + innerHeight - top) / step) + ROWS_BEYOND) * columns);
  const inSight = new Map();
  for (let at = from; at < to; at++) inSight.set(keyOf(hits[at]), at);
  if (hits[active] && (tiles.get(keyOf(hits[active])) === document.activeElement || inSight.size === 0))
    inSight.set(keyOf(hits[active]), active); // a tile with the focus stays in the document
  for (const key of tiles.keys()) if (!inSight.has(key)) release(key);
  for (const [key, at] of inSight) place(key, at);
  // Tab leads to the active tile, or to the first in sight.
  const stop = hits[active] && tiles.has(keyOf(hits[active])) ? active : from;
  for (const tile of tiles.values()) tile.tabIndex = tile.at === stop ? 0 : -1;
  if (isPartial && scrollY + innerHeight * (1 + NEAR) > top + Math.ceil(hits.length / columns) * step) handlers.more();
}

function place(key, at) {
  const hit = hits[at];
  let tile = tiles.get(key);
  const isNew = tile === undefined;
  if (isNew) {
    tile = free.pop() ?? newTile();
    tiles.set(key, tile);
    tile.hit = null;
    tile.classList.remove("lost");
    tile.image.classList.remove("there");
    tile.image.removeAttribute("src");
  }
  const x = (at % columns) * (width + gap), y = Math.floor(at / columns) * (height + gap);
  const where = `translate(${x}px,${y}px)`;
  if (tile.where !== where) tile.style.transform = tile.where = where;
  if (tile.wide !== width) {
    tile.wide = width;
    tile.style.width = `${width}px`;
    tile.style.height = `${height}px`;
  }
  if (tile.at !== at || isNew) {
    tile.at = at;
    tile.setAttribute("aria-posinset", at + 1);
  }
  if (tile.size !== hits.length) tile.setAttribute("aria-setsize", isPartial ? -1 : hits.length);
  tile.size = hits.length;
  if (tile.hit !== hit) describe(tile, hit);
  if (isNew) {
    root.append(tile);
    tile.giveUp = picture(hit.id, width, (url) => {
      if (url === null) tile.classList.add("lost");
      else {
        tile.image.src = url;
        tile.image.classList.add("there");
      }
    });
  }
}

function describe(tile, hit) {
  const name = nameOf(hit.path), copies = hit.paths.length - 1;
  tile.hit = hit;
  tile.name.textContent = name;
  tile.classList.toggle("open", !hit.verified);
  tile.classList.toggle("fits", hit.verified && hit.match >= FITS);
  tile.match.textContent = hit.verified ? percent(hit.match) : "unverified";
  tile.more.hidden = copies < 1;
  tile.more.textContent = `+${copies}`;
  tile.title = hit.path;
  const said = hit.verified ? `match ${percent(hit.match)}` : "unverified";
  tile.setAttribute("aria-label", `${name}, ${said}${copies > 0 ? `, ${copies} more of the same content` : ""}`);
}

function newTile() {
  const image = make("img", { alt: "", decoding: "async", draggable: "false" });
  const more = make("span", { class: "more" });
  const match = make("span", { class: "match" });
  const name = make("span", { class: "name" });
  const frame = make("span", { class: "frame" }, image, more);
  const tile = make("div", { class: "tile", role: "option", "aria-selected": "false", tabindex: "-1" }, frame,
    make("span", { class: "caption" }, match, name));
  return Object.assign(tile, { image, more, match, name });
}

function release(key) {
  const tile = tiles.get(key);
  tiles.delete(key);
  tile.giveUp?.();
  tile.giveUp = null;
  tile.remove();
  if (free.length < 200) free.push(tile);
}

function setActive(at) {
  active = at;
  for (const tile of tiles.values()) tile.tabIndex = tile.at === at ? 0 : -1;
}

function reveal(at) {
  const y = top + Math.floor(at / columns) * (height + gap);
  const bar = document.querySelector("header");
  const hidden = getComputedStyle(bar).position === "sticky" ? bar.offsetHeight + 8 : 8;
  if (y < scrollY + hidden) scrollTo({ top: Math.max(0, y - hidden) });
  else if (y + height > scrollY + innerHeight) scrollTo({ top: y + height - innerHeight + 8 });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const page = columns * Math.max(1, Math.floor((innerHeight - 150) / (height + gap)));
  const steps = {
    ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page,
    Home: -Infinity, End: Infinity,
  };
  if (event.key === "Enter" || event.key === " ") handlers.open(active);
  else if (event.key === "ArrowUp" && active < columns) handlers.leave();
  else if (event.key in steps) focus(active + steps[event.key]);
  else return;
  event.preventDefault();
}
