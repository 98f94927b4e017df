// Building blocks. Event data becomes text nodes here and nothing else: no string is ever HTML.

/** The element with this id. */
export const by = (id) => document.getElementById(id);

/**
 * An element. `class`, `text` and `on…` are what they say; other properties become attributes,
 * those that are false, null or undefined do not.
 */
export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "text") made.textContent = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(key, value === true ? "" : value);
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** "anon_6f1c…b2d4": the ends tell ids apart, the middle seldom does. */
export const shortened = (text) =>
  text.length <= 16 ? text : `${text.slice(0, 9)}…${text.slice(-4)}`;

export const plural = (count, one, many = `${one}s`) =>
  `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** The time of day, with the day before it if that was not today. */
export function moment(text) {
  const at = new Date(text);
  if (at.toDateString() === new Date().toDateString()) return clock.format(at);
  return `${day.format(at)}, ${clock.format(at)}`;
}

let silence;

/** Say something at the bottom of the page for a moment, and to a screen reader. */
export function say(words) {
  const said = by("said");
  said.textContent = words;
  clearTimeout(silence);
  silence = setTimeout(() => (said.textContent = ""), 4000);
}

/** Put text on the clipboard; a page that is not of this machine needs the older way. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = el("textarea", { class: "unseen", "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    const focused = document.activeElement;
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    focused?.focus();
    if (!done) return say("The browser does not let this page copy");
  }
  say(`${what} copied`);
}
