// How numbers, dates and names are written, and elements made.

const whole = new Intl.NumberFormat("en");

export const count = (number, noun) => `${whole.format(number)} ${noun}${number === 1 ? "" : "s"}`;

// 0.004 -> "0.4 %", 0.998 -> "99.8 %": a probability is never rounded to 0 or 1.
export function percent(probability) {
  const value = probability * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  if (value < 100 && value > 99.9) return "> 99.9 %";
  return `${value < 1 || (value > 99 && value < 100) ? value.toFixed(1) : Math.round(value)} %`;
}

export const sentence = (line) => line.charAt(0).toUpperCase() + line.slice(1);

export const nameOf = (path) => path.slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1) || path;

// A path as a part of a URL. A byte of a name that is no UTF-8 comes as a lone surrogate, U+DC80 to U+DCFF.
export const inUrl = (path) => Array.from(path, (sign) =>
  /^[\udc80-\udcff]$/.test(sign) ? `%${(sign.charCodeAt(0) - 0xdc00).toString(16)}` : encodeURIComponent(sign)).join("");

export function moment(iso) {
  const [day, time = ""] = iso.split("T");
  const date = new Date(`${day}T00:00:00`);
  const said = date.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" });
  return time ? `${said}, ${time.slice(0, 5)}` : said;
}

export const byId = (id) => document.getElementById(id);

// Make an element. Texts are never read as HTML.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
