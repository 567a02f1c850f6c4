// The page: a person's input starts a search, and the answers become words and pictures.

import { Fault, hasToken, json, pause, setToken, wait } from "/page/api.js";
import * as facets from "/page/facets.js";
import * as filters from "/page/filters.js";
import * as grid from "/page/grid.js";
import * as search from "/page/search.js";
import { asksNothing, empty, fromUrl, hasMask, toUrl } from "/page/state.js";
import * as view from "/page/view.js";
import { picture } from "/page/pictures.js";
import { byId, count, make, percent, sentence } from "/page/words.js";

const FITS = 0.5; // as in `bt search`
const PAUSE_MS = 400; // without a key, after which a search is verified
const FAST_MS = 100; // of recall, up to which nearly each key asks
const KEY_MS = 20, SLOW_KEY_MS = 120;
const EMPTY_MS = 3000; // between two looks at an index without pictures

const [text, given, status, answer, notes] = ["text", "given", "status", "answer", "notes"].map(byId);
let asked = empty();
let index = null; // the figures of the index
let lastRead = Infinity; // the time at which the figures were asked
let began = 0;
let typed = null, paused = null, looking = null; // timers
let filling = null;
let shownKey = ""; // the search whose pictures are in the grid
let said = ""; // of the search, without the least match

// The question

function read() {
  asked = { ...asked, text: text.value, ...filters.get() };
}

// `place` in the history: a "draft" while a person types, "final", or the "same".
function ask({ typing = false, place = "final" } = {}) {
  clearTimeout(typed);
  if (!typing) clearTimeout(paused);
  read();
  remember(place);
  filling?.abort();
  byId("token").hidden = true;
  if (asksNothing(asked)) return rest();
  byId("start").hidden = byId("empty").hidden = true;
  if (asked.since && asked.before && asked.since >= asked.before) {
    search.cancel();
    return failed(new Fault(422, "dates", "No day is from the first date on, and before the second"));
  }
  if (hasMask(asked)) return typing ? undefined : fill();
  facets.hide();
  began = performance.now();
  search.run(asked, { typing });
}

function remember(place) {
  const url = toUrl(asked);
  document.title = asked.text.trim() ? `${asked.text.trim()} – bt` : "bt";
  const isDraft = history.state?.isDraft === true;
  const isNew = url !== (location.hash || location.pathname);
  if (place === "same") history.replaceState(history.state, "", url);
  else if (isNew && !isDraft) history.pushState({ isDraft: place === "draft" }, "", url);
  else if (isNew || isDraft) history.replaceState({ isDraft: place === "draft" }, "", url);
}

function restore() {
  const { images, ...others } = fromUrl();
  asked = { ...asked, ...others };
  take(images);
  text.value = asked.text;
  filters.set(asked);
}

function rest() {
  search.cancel();
  facets.hide();
  grid.show([]);
  answer.hidden = notes.hidden = true;
  say("");
  if (performance.now() - lastRead > EMPTY_MS) readStatus().catch(() => {}); // the figures that are there stay
  byId("start").hidden = !(index?.pictures > 0);
  byId("empty").hidden = index === null || index.pictures > 0;
}

function drawGiven() {
  given.replaceChildren(...asked.images.map((one) => {
    const image = make("img", { alt: "" });
    if (one.file) image.src = one.url ??= URL.createObjectURL(one.file);
    else picture(one.id, 34, (url) => url && (image.src = url));
    const remove = () => {
      text.focus();
      searchBy(asked.images.filter((other) => other !== one));
    };
    return make("button", { type: "button", class: "given", title: "Remove this picture",
      "aria-label": "Remove the picture from the search", onclick: remove }, image);
  }));
}

function take(images) {
  for (const one of asked.images) if (one.url && !images.includes(one)) URL.revokeObjectURL(one.url);
  asked.images = images;
  drawGiven();
}

function searchBy(images) {
  take(images);
  ask();
}

async function fill() {
  search.cancel();
  grid.show([]);
  answer.hidden = notes.hidden = true;
  const { signal } = (filling = new AbortController());
  const mine = asked;
  say("Reading words out of the pictures…");
  for (;;) {
    try {
      const found = await facets.fill(mine, signal);
      facets.show(mine, found, (chosen) => {
        text.value = chosen;
        text.focus();
        ask();
      });
      say(found.words.length ? "Choose a word to search with it." : "The pictures give no word.");
      byId("empty").hidden = index?.pictures !== 0;
      listNotes(found.notes);
      return;
    } catch (error) {
      if (error.name === "AbortError" || signal.aborted) return;
      const seconds = wait(error);
      if (seconds === null) return failed(error);
      trouble(error, seconds);
      await pause(seconds, signal).catch(() => {});
      if (signal.aborted) return;
    }
  }
}

// The answers

function hear({ stage, typing, done, total, lacksHead, fault, seconds }) {
  if (stage === "waiting") {
    if (!grid.length()) say("Searching…");
  } else if (stage === "asleep") say("The model is being read, which takes some seconds…");
  else if (stage === "trouble") trouble(fault, seconds);
  else if (stage === "failed") failed(fault);
  else if (stage === "again") say("The list had expired: it is asked again…");
  else if (stage === "more") showHits();
  else {
    if (stage === "recalled") {
      said = typing ? "By similarity; verified when you pause" : "By similarity; being verified";
      if (typing || lacksHead) answer.hidden = true;
      if (!typing) listNotes([]);
    } else if (stage === "verified") said = total ? `Verified ${done} of ${total}` : "Being verified";
    else finish(lacksHead);
    const key = [toUrl({ ...asked, least: 0 }), ...asked.images.map((one) => one.url)].join(" ");
    const isOther = key !== shownKey;
    shownKey = key;
    if (isOther && stage === "recalled") scrollTo(0, 0);
    showHits({ animated: stage !== "recalled", fromStart: isOther });
  }
}

function finish(lacksHead) {
  const { answer: found } = search.found;
  const s = ((performance.now() - began) / 1000).toFixed(1);
  said = found.verified ? `${count(found.verified, "picture")} verified in ${s} s` : "By similarity, none verified";
  const unfit = found.best_match !== null && found.best_match < FITS;
  answer.hidden = true;
  if (!found.hits.length && index?.pictures === 0) {
    byId("empty").hidden = false;
    said = "";
  }
  else if (!found.hits.length) {
    const isFiltered = asked.under.length || asked.since || asked.before;
    tell(isFiltered ? "No picture passes these filters." : "No picture was found.");
  } else if (unfit) tell(`No picture is probably this: the best has ${percent(found.best_match)}.`);
  const more = [...found.notes];
  if (lacksHead)
    more.push("The model has no matching head: pictures are in order of similarity, and none is verified.");
  if (found.skipped.length) more.push(`${count(found.skipped.length, "picture")} could not be read.`);
  if (found.gone) more.push(`Files that are gone: ${found.gone}. \`bt index\` notices that.`);
  if (found.in_cloud) more.push(`${count(found.in_cloud, "picture")} in the cloud only could not be verified.`);
  if (found.away.length) more.push(`Not there now: ${found.away.join(", ")}.`);
  if (found.barred.length) more.push(`${count(found.barred.length, "place")} may not be read.`);
  if (found.damaged) more.push("A part of the index is damaged: `bt verify` says more.");
  listNotes(more);
}

function tell(line) {
  answer.textContent = line;
  answer.hidden = false;
}

function listNotes(lines) {
  notes.replaceChildren(...lines.map((line) => make("li", {}, sentence(line.replace(/^note: /, "")))));
  notes.hidden = lines.length === 0;
}

// Show the hits that have the least match, and tell how many it hides.
function showHits(how = {}) {
  const { hits, cursor } = search.found;
  const least = asked.least / 100;
  const left = least ? hits.filter((hit) => hit.verified && hit.match >= least) : hits;
  grid.show(left, { partial: cursor !== null && !least, ...how });
  view.refresh();
  const parts = [said];
  if (least) {
    const below = hits.filter((hit) => hit.verified && hit.match < least).length;
    const unverified = hits.length - left.length - below;
    const some = cursor === null ? "" : " or more";
    const hidden = `${below} below ${asked.least} % and ${unverified}${some} unverified`;
    parts.push(`${count(left.length, "picture")} shown; hidden are ${hidden}`);
  } else if (hits.length) parts.push(`${cursor === null ? "" : "first "}${count(hits.length, "picture")}`);
  const line = parts.filter(Boolean).join(". ");
  say(line && `${line}.`);
}

function say(line, isTrouble = false) {
  if (status.textContent !== line) status.textContent = line;
  status.classList.toggle("trouble", isTrouble);
}

function trouble(fault, seconds) {
  const why = fault.status === 0 ? "The server does not answer" : fault.status === 429 ? "The server is busy"
    : sentence(fault.message);
  say(`${why}: asking again in ${seconds} s.`, true);
}

function failed(fault) {
  if (fault.status === 401) return wantToken();
  facets.hide();
  grid.show([]); // the pictures there are of another search
  answer.hidden = notes.hidden = true;
  say(`${sentence(fault.message.replace(/^image \d+: /, "this picture cannot be read: "))}.`, true);
}

function wantToken() {
  const isWrong = hasToken();
  setToken(null);
  byId("wrong").hidden = !isWrong;
  byId("token").hidden = false;
  byId("start").hidden = byId("empty").hidden = true;
  say("");
  byId("key").value = "";
  byId("key").focus();
}

// The start

async function readStatus() {
  lastRead = performance.now();
  const state = await json("/status");
  const before = index?.pictures;
  index = state.index ?? { pictures: 0, roots: [] };
  byId("lack").textContent = state.index === null
    ? "There is no index in the folder that is served: its disk may be away" : "There are no pictures in the index yet";
  view.setReveals(state.reveals === true);
  filters.setRoots(index.roots);
  byId("count").textContent = count(index.pictures, "picture");
  clearTimeout(looking);
  if (index.pictures === 0) looking = setTimeout(look, EMPTY_MS);
  if (before !== undefined && (before === 0) !== (index.pictures === 0)) ask({ place: "same" });
}

// Read the figures until `bt index` has added a picture.
function look() {
  looking = setTimeout(look, EMPTY_MS);
  if (!document.hidden) readStatus().catch(() => {});
}

async function begin() {
  for (;;) {
    try {
      await readStatus();
      break;
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      const seconds = wait(error);
      if (seconds === null) return failed(error);
      trouble(error, seconds);
      await pause(seconds);
    }
  }
  ask({ place: "same" }); // with what a person has done meanwhile
}

search.install(hear);
grid.install({
  open: (at) => view.open(at),
  more: () => search.next(),
  leave: () => text.focus(),
});
view.install({
  pictures: { hit: grid.hit, length: grid.length, more: () => search.next() },
  like: (hit) => {
    text.value = "";
    text.focus();
    searchBy([{ id: hit.id }]);
  },
  closed: (at) => grid.focus(at),
});
filters.install({
  changed: () => ask(),
  hides: () => {
    read();
    remember("same");
    if (!asksNothing(asked) && !hasMask(asked)) showHits();
  },
});

text.addEventListener("input", () => {
  clearTimeout(typed);
  clearTimeout(paused);
  typed = setTimeout(() => ask({ typing: true, place: "draft" }), search.recall_ms < FAST_MS ? KEY_MS : SLOW_KEY_MS);
  paused = setTimeout(ask, PAUSE_MS);
});
text.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" && !event.isComposing) {
    event.preventDefault();
    if (grid.length()) grid.focus();
    else facets.focus();
  } else if (event.key === "Escape" && text.value) {
    event.preventDefault();
    text.value = "";
    ask();
  }
});
byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
byId("token").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("key").value.trim());
  byId("token").hidden = true;
  text.focus();
  begin();
});
byId("file").addEventListener("change", (event) => {
  takeFiles(event.target.files);
  event.target.value = "";
});
for (const button of document.querySelectorAll("#start [data-text]"))
  button.addEventListener("click", () => {
    text.value = button.dataset.text;
    text.focus();
    ask();
  });
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || view.isOpen()) return;
  const isTyped = event.target.matches?.("input:not([type=range],[type=checkbox],[type=file])");
  if (isTyped && (event.target !== text || text.value)) return;
  event.preventDefault();
  text.focus();
  text.select();
});

function takeFiles(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/") || file.type === "");
  if (images.length) searchBy(images.map((file) => ({ file })));
  else if (files.length) say("That is no picture.", true);
}

const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
let over = 0;
addEventListener("dragenter", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  over++;
  byId("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (holdsFiles(event) && --over <= 0) byId("drop").hidden = true;
});
addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
addEventListener("drop", (event) => {
  over = 0;
  byId("drop").hidden = true;
  if (!holdsFiles(event)) return;
  event.preventDefault();
  view.leave();
  takeFiles(event.dataTransfer.files);
});
addEventListener("paste", (event) => {
  if (!event.clipboardData?.files.length) return;
  const isText = event.clipboardData.types.includes("text/plain");
  if (isText && (event.target === text || event.target === byId("key"))) return; // office programs add a picture of it
  event.preventDefault();
  view.leave();
  takeFiles(event.clipboardData.files);
});
addEventListener("popstate", () => {
  view.leave();
  restore();
  ask({ place: "same" });
});
restore();
text.focus();
begin();
