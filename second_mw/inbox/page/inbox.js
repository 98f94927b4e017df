// The page: listens to the stream, keeps the list, opens what is chosen.

import { by, copy, el, plural, say } from "./dom.js";
import { List } from "./list.js";
import { opened } from "./open.js";

const wide = matchMedia("(min-width: 900px)");
const list = new List(by("list"), by("spacer"), by("news"), (row) => open(row.id));
const names = new Set();
let state = {};
let entry = null;

// -- the stream --

function listen() {
  const stream = new EventSource("/api/stream");
  stream.addEventListener("open", () => live("on", "Live"));
  stream.addEventListener("reset", reset);
  stream.addEventListener("rows", (message) => take(JSON.parse(message.data)));
  stream.addEventListener("state", (message) => show(JSON.parse(message.data)));
  stream.addEventListener("error", () => {
    live("off", "Not connected");
    // A server that answers with an error ends the stream for good.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  });
}

function live(value, words) {
  by("live").dataset.live = value;
  if (by("live").textContent !== words) by("live").textContent = words;
}

function reset() {
  list.reset();
  names.clear();
  by("names").replaceChildren();
  close();
  summarize();
}

function take(rows) {
  if (list.take(rows)) load(list.selected);
  for (const row of rows) {
    if (row.kind !== "event" || names.has(row.event) || names.size > 500) continue;
    names.add(row.event);
    by("names").append(el("option", { value: row.event }));
  }
  if (entry === null && hashed() !== null && list.byId.has(hashed())) open(hashed());
  summarize();
}

// -- the header --

function show(given) {
  state = given;
  by("address").textContent = state.url;
  by("protocols").textContent = state.protocols.join(", ");
  by("open-to-network").hidden = !state.open_to_network;
  by("counts").textContent =
    plural(state.events, "event") + (state.refused ? ` · ${state.refused} refused` : "");
  by("clear").disabled = !(state.events + state.refused);
  showFailure();
  list.forget(state.oldest);
  summarize();
}

function showFailure() {
  const choice = by("fail");
  if (!choice.options.length) {
    choice.append(el("option", { value: "", text: "as PostHog" }));
    for (const mode of Object.keys(state.failures)) {
      choice.append(el("option", { value: mode, text: mode }));
    }
  }
  choice.value = state.fail ?? "";
  by("failing").hidden = !state.fail;
  const words = state.fail ? `Failing on purpose: ${state.failures[state.fail]}.` : "";
  if (by("failing").textContent !== words) by("failing").textContent = words;
}

async function post(path, body) {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!answer.ok) say(await answer.text());
  } catch {
    say("The inbox does not answer");
  }
}

by("fail").addEventListener("change", (event) =>
  post("/api/fail", { fail: event.target.value || null }),
);
by("address").addEventListener("click", () => copy(state.url, "Address"));
by("clear").addEventListener("click", () => {
  by("clearing-words").textContent = `${by("counts").textContent} will be gone.`;
  by("clearing").returnValue = "";
  by("clearing").showModal();
});
by("clearing").addEventListener("close", () => {
  if (by("clearing").returnValue === "forget") post("/api/clear", {});
});

// -- nothing yet --

const lines = () => [
  `export SECOND_POSTHOG_HOST=${state.url}`,
  "export SECOND_POSTHOG_TOKEN=phc_local",
  "second-mw run your_module:app",
];
const receiptLines = () => [
  "from second_mw.inbox.receipts import ReceiptSender",
  `receipts = ReceiptSender("${state.url}/receipts")`,
  "analytics = Analytics.from_env(on_receipt=receipts)",
];
by("copy-lines").addEventListener("click", () => copy(`${lines().join("\n")}\n`, "Lines"));
by("copy-receipt-lines").addEventListener("click", () =>
  copy(`${receiptLines().join("\n")}\n`, "Lines"),
);

/** Say how much is shown, and what to do if that is nothing. */
function summarize() {
  const isEmpty = !list.all.length;
  if (state.url) document.body.dataset.state = isEmpty ? "empty" : "full";
  if (isEmpty && state.url) {
    const text = lines().join("\n");
    if (by("lines").textContent !== text) {
      by("lines").textContent = text;
      by("receipt-lines").textContent = receiptLines().join("\n");
    }
  }
  by("matches").hidden = !isFiltered();
  const words = list.shown.length
    ? `${list.shown.length.toLocaleString("en")} of ${plural(list.all.length, "entry", "entries")}`
    : "Nothing matches";
  if (by("matches-words").textContent !== words) by("matches-words").textContent = words;
}

// -- filters --

const filters = [by("by-event"), by("by-mode"), by("by-id")];
const isFiltered = () => filters.some((field) => field.value.trim());

function filter() {
  const [name, mode, id] = filters.map((field) => field.value.trim().toLowerCase());
  list.refilter(
    (row) =>
      row.event.toLowerCase().includes(name) &&
      row.distinct_id.toLowerCase().includes(id) &&
      (!mode || row.mode === mode || (mode === "refused" && isRefused(row))),
  );
  summarize();
}

const isRefused = (row) => row.kind === "refused" || row.result === "drop";

function only(distinctId) {
  for (const field of filters) field.value = "";
  by("by-id").value = distinctId;
  filter();
  say("Showing this distinct_id alone");
}

by("filters").addEventListener("input", filter);
by("filters").addEventListener("change", filter);
by("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  by("list").focus();
});
by("unfilter").addEventListener("click", () => {
  for (const field of filters) field.value = "";
  filter();
  by("by-event").focus();
});

// -- the open entry --

const hashed = () => (/^#\d+$/.test(location.hash) ? Number(location.hash.slice(1)) : null);

function open(id) {
  if (hashed() !== id) {
    // On a small window the open event covers the list, and Back uncovers it.
    const change = document.body.dataset.view === "list" && !wide.matches ? "push" : "replace";
    history[`${change}State`](null, "", `#${id}`);
  }
  document.body.dataset.view = "open";
  if (list.selected !== id) list.select(id);
  return load(id, true);
}

async function load(id, isNew = false) {
  let answer;
  try {
    answer = await fetch(`/api/entries/${id}`);
  } catch {
    return say("The inbox does not answer");
  }
  const found = answer.ok ? await answer.json() : null;
  if (list.selected !== id) return; // another was chosen meanwhile
  if (found === null) return say("It is no longer kept");
  entry = found;
  const act = { open: (other) => list.choose(list.byId.get(other)), filter: only };
  const back = el("button", { type: "button", class: "back", text: "← All events", onclick: close });
  by("open").replaceChildren(back, ...opened(entry, act));
  by("open").hidden = false;
  by("hint").hidden = true;
  if (isNew) by("open-pane").scrollTop = 0;
  if (isNew && !wide.matches) by("open-pane").focus();
}

/** Go back to the list. */
function close() {
  entry = null;
  document.body.dataset.view = "list";
  const before = list.selected;
  list.select(null);
  list.reveal(list.positionOf(before));
  by("open").hidden = true;
  by("open").replaceChildren();
  by("hint").hidden = false;
  if (location.hash) history.replaceState(null, "", location.pathname);
  if (!wide.matches) by("list").focus();
}

addEventListener("popstate", () => (hashed() === null ? close() : open(hashed())));

// -- keys --

const letters = {
  j: () => step(1),
  k: () => step(-1),
  c: () => (entry?.json ? copy(entry.json, "JSON") : say("No event is open")),
  "/": () => {
    if (document.body.dataset.view === "open" && !wide.matches) close();
    by("by-event").focus();
    by("by-event").select();
  },
};
const ways = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  PageDown: () => step(list.page),
  PageUp: () => step(-list.page),
  Home: () => step(-Infinity),
  End: () => step(Infinity),
};

function step(steps) {
  if (wide.matches) by("list").focus();
  list.move(steps);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape") {
    if (!typing) return wide.matches || close();
    event.target.blur(); // a list without a match can't take the focus
    return by("list").focus();
  }
  if (typing) return;
  const inList = event.target === document.body || event.target === by("list");
  const act = (by("keys-on").checked && letters[event.key]) || (inList && ways[event.key]);
  if (!act) return;
  event.preventDefault();
  act();
}

addEventListener("keydown", pressed);
by("keys-open").addEventListener("click", () => by("keys").showModal());
try {
  by("keys-on").checked = localStorage.getItem("second:inbox-keys") !== "off";
} catch {
  // Storage is blocked: the choice holds for this page.
}
by("keys-on").addEventListener("change", (event) => {
  try {
    localStorage.setItem("second:inbox-keys", event.target.checked ? "on" : "off");
  } catch {
    // As above.
  }
});

listen();
