// Folders, dates and the least match.

import { json } from "/page/api.js";
import { byId, count, inUrl, make, nameOf } from "/page/words.js";

const NO_UTF_8 = /\p{Surrogate}/u; // JSON holds no such path
const UNNAMED = "The name of this folder is not UTF-8, so no search can be limited to it.";

const [box, tree, chosen] = [byId("folders"), byId("tree"), byId("chosen")];
const [since, before, least, leastValue, clear] = ["since", "before", "least", "leastvalue", "clear"].map(byId);
let under = new Set();
let roots = [];

// `changed()` is called where the search changes, `hides()` where only the least match does.
export function install({ changed, hides }) {
  const ask = () => {
    draw();
    changed();
  };
  since.addEventListener("change", ask);
  before.addEventListener("change", ask);
  least.addEventListener("input", () => {
    draw();
    hides();
  });
  clear.addEventListener("click", () => {
    set({ under: [], since: "", before: "", least: 0 });
    since.focus();
    changed();
  });
  tree.addEventListener("change", (event) => {
    if (event.target.checked) under.add(event.target.value);
    else under.delete(event.target.value);
    ask();
  });
  box.addEventListener("toggle", () => box.open && open());
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !box.open) return;
    box.open = false;
    box.querySelector("summary").focus();
    event.stopPropagation();
  });
  document.addEventListener("click", (event) => {
    if (!box.contains(event.target)) box.open = false;
  });
}

export const get = () => ({ under: [...under], since: since.value, before: before.value, least: Number(least.value) });

export function set(asked) {
  under = new Set(asked.under);
  since.value = asked.since;
  before.value = asked.before;
  least.value = asked.least;
  for (const input of tree.querySelectorAll("input")) input.checked = under.has(input.value);
  draw();
}

// The folders that were given to `bt index`.
export function setRoots(given) {
  roots = given;
  box.hidden = roots.length === 0;
}

function draw() {
  leastValue.textContent = least.value === "0" ? "any" : `${least.value} %`;
  least.setAttribute("aria-valuetext", least.value === "0" ? "any" : `${least.value} percent`);
  chosen.textContent = under.size ? `: ${under.size === 1 ? nameOf([...under][0]) : under.size}` : "";
  clear.hidden = !(under.size || since.value || before.value || least.value !== "0");
}

async function open() {
  const given = await json("/folders").catch(() => ({ folders: roots.map((path) => ({ path })), more: false }));
  tree.replaceChildren(...rows(given, true));
  byId("nofolders").hidden = given.folders.length > 0;
}

function rows(given, isRoot) {
  const made = given.folders.map((folder) => row(folder, isRoot));
  if (given.more) made.push(make("li", {}, "There are more folders than are listed here."));
  return made;
}

function row(folder, isRoot) {
  const name = isRoot ? folder.path : (folder.name ?? nameOf(folder.path));
  const isNamed = !NO_UTF_8.test(folder.path);
  const input = make("input", { type: "checkbox", value: folder.path, disabled: !isNamed });
  input.checked = under.has(folder.path);
  const named = { type: "button", "aria-expanded": "false", "aria-label": `Folders in ${name}` };
  const button = make("button", named, "▸");
  const inside = make("ul", { hidden: true });
  button.addEventListener("click", async () => {
    if (!inside.hasChildNodes()) {
      const given = await json(`/folders?under=${inUrl(folder.path)}`).catch(() => null);
      if (given === null || !given.folders.length) {
        button.disabled = true;
        button.textContent = "";
        return;
      }
      inside.replaceChildren(...rows(given, false));
    }
    inside.hidden = !inside.hidden;
    button.setAttribute("aria-expanded", String(!inside.hidden));
    button.textContent = inside.hidden ? "▸" : "▾";
  });
  const line = make("div", { class: "folder" }, button,
    make("label", { title: isNamed ? null : UNNAMED }, input, " ", name));
  if (folder.files !== undefined)
    line.append(make("span", { class: "files" }, count(folder.files, "file")));
  return make("li", {}, line, inside);
}
