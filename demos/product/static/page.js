// What every module of a page shares: what the server said at the start, asking it for more, making
// elements, and a line to say when something went wrong. No event is captured here.

export const page = JSON.parse(document.getElementById("page").textContent);

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// Post JSON to a path of this workspace and return the answer; a refusal becomes an Error.
export async function post(path, fields = {}) {
  const answer = await fetch(page.root + path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(fields),
  });
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

// h("p", {class: "muted"}, "text", child): text is always text, never markup.
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.flat(9).filter((child) => child != null && child !== false));
  return element;
}

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `/static/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

export function toast(words) {
  const line = document.getElementById("toast");
  line.textContent = words;
  line.hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => (line.hidden = true), 6000);
}

// Run an async handler for an event; while it runs, what was pressed can't be pressed again.
export const handle = (work) => async (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  const button = event.submitter || (form.matches("form") ? $("button:not([type=button])", form) : form);
  if (button) button.disabled = true;
  try {
    await work(event, form);
  } catch {
    toast("That did not work. Look at the page again, or reload it.");
  } finally {
    if (button) button.disabled = false;
  }
};

export const wait = (ms) => new Promise((done) => setTimeout(done, ms));

// Enter sends, Shift+Enter begins a line; not while an input method is composing a word.
export function sendOnEnter(textarea) {
  textarea.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    textarea.form.requestSubmit();
  });
}
