// The words for each <mask> of a text, each with pictures that show it. A click puts the word in its place.

import { json } from "/page/api.js";
import { picture } from "/page/pictures.js";
import { bodyOf, MASK } from "/page/state.js";
import { byId, count, make, percent } from "/page/words.js";

const WORDS = 12; // for each mask
const SMALL = 4; // pictures of a word

const root = byId("facets");
let givenUp = [];

export function hide() {
  for (const giveUp of givenUp) giveUp();
  givenUp = [];
  root.hidden = true;
  root.replaceChildren();
}

export async function fill(asked, signal) {
  return await json("/fill", { body: bodyOf({ ...asked, under: [], since: "", before: "" }, { top: WORDS }), signal });
}

// Show an answer of `fill`; `choose(text)` gets the text with a word in place of its mask.
export function show(asked, answer, choose) {
  hide();
  const parts = asked.text.split(MASK);
  for (let mask = 0; mask < parts.length - 1; mask++) {
    const words = answer.words.filter((word) => word.mask === mask);
    const list = make("ul", { class: "words" });
    for (const word of words) {
      const text = parts.reduce((text, part, at) => text + (at - 1 === mask ? word.token.trim() : MASK) + part);
      list.append(make("li", {}, card(word, text, () => choose(text))));
    }
    const title = parts.length > 2 ? `Words for blank ${mask + 1} of ${parts.length - 1}` : "Words for the blank";
    root.append(make("div", { class: "blank" }, make("h2", {}, title), list));
  }
  root.hidden = false;
}

function card(word, text, choose) {
  const figures = [percent(word.probability)];
  if (word.count) figures.push(count(word.count, "picture"));
  const meter = make("i");
  meter.style.width = `${Math.max(1, word.probability * 100)}%`;
  const button = make("button", { type: "button", class: "word", title: `Search ${text}`, onclick: choose },
    make("b", {}, word.token.trim()), " ", make("span", { class: "figures" }, figures.join(" · ")),
    make("span", { class: "meter" }, meter));
  const ids = (word.ids ?? []).filter(Boolean).slice(0, SMALL);
  if (ids.length) {
    const strip = make("span", { class: "strip" });
    for (const id of ids) {
      const image = make("img", { alt: "" });
      strip.append(image);
      givenUp.push(picture(id, 100, (url) => url !== null && (image.src = url)));
    }
    button.append(strip);
  }
  return button;
}

export const focus = () => root.querySelector("button")?.focus();
