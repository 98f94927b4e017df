// An app's chat: draws the thread from what the server says, answers cards, follows builds.

import { $, h, handle, icon, page, post, sendOnEnter, toast, wait } from "./page.js";
import { tell } from "./news.js";
import * as usage from "./usage.js";

const POLL_MS = 400;
const path = `/apps/${page.app.id}`;
const thread = $("#thread");
const ask = $("#ask");
const appWindow = $("#window");
const drawn = new Map(); // entry id → { element, json }
let state = { app: page.app, thread: page.thread, busy: page.busy };

// The cards

const words = { open: "Waits for you", approved: "Approved", requested_changes: "Changes asked" };

function message(entry) {
  return h("div", { class: `message ${entry.who}`, tabindex: "-1" }, h("p", {}, entry.text));
}

function card(entry, title, ...body) {
  const heading = `card-${entry.id}`;
  return h(
    "article",
    { class: `card ${entry.type}`, "aria-labelledby": heading, tabindex: "-1" },
    h("h2", { id: heading }, title),
    ...body,
  );
}

function suggestions(entry) {
  const choice = (item) =>
    h(
      "button",
      {
        type: "button",
        class: "choice",
        "aria-pressed": `${entry.picked === item.title}`,
        disabled: !entry.open,
        onclick: handle(() => act(entry, "picked_suggestion", item.title)),
      },
      h("strong", {}, item.title),
      h("span", { class: "muted small" }, item.subtitle),
    );
  return card(entry, "Where to begin", h("div", { class: "choices" }, entry.items.map(choice)));
}

function answers(entry, approve) {
  if (!entry.open)
    return h(
      "p",
      {},
      h(
        "span",
        { class: `badge ${entry.state === "approved" ? "ready" : "draft"}` },
        words[entry.state],
      ),
    );
  const change = h(
    "form",
    {
      class: "feedback",
      hidden: true,
      onsubmit: handle((event, form) => {
        const word = form.elements.word.value.trim();
        return word && act(entry, "requested_changes", word);
      }),
    },
    h("label", { for: `word-${entry.id}` }, "What should change?"),
    h("textarea", { id: `word-${entry.id}`, name: "word", rows: 2, required: true }),
    h("button", { class: "button" }, "Send"),
  );
  return [
    h(
      "div",
      { class: "row start" },
      h(
        "button",
        { type: "button", class: "button primary", onclick: handle(() => act(entry, "approved")) },
        approve,
      ),
      h(
        "button",
        {
          type: "button",
          class: "button",
          onclick: () => {
            change.hidden = !change.hidden;
            if (!change.hidden) change.elements.word.focus();
          },
        },
        "Request changes",
      ),
    ),
    change,
  ];
}

function plan(entry) {
  const { plan } = entry;
  const part = (title, text) => [h("dt", {}, title), h("dd", {}, text)];
  return card(
    entry,
    plan.title,
    h("p", {}, plan.overview),
    h(
      "ul",
      { class: "plain" },
      plan.features.map((feature) => h("li", {}, feature)),
    ),
    h(
      "dl",
      { class: "facts" },
      part("Data", plan.data_flow),
      part("Agents", plan.agents),
      part("Behind it", plan.backend),
    ),
    answers(entry, "Approve plan"),
  );
}

function agents(entry) {
  const tool = (each) =>
    h("span", { class: `chip${each.enabled ? "" : " off"}` }, each.label, each.enabled ? "" : " (off)");
  return card(
    entry,
    entry.agents.length === 1 ? "One agent would help" : `${entry.agents.length} agents would help`,
    entry.agents.map((agent) => [
      h("h3", {}, agent.name),
      h("p", { class: "muted" }, agent.about),
      h("div", { class: "chips" }, agent.tools.map(tool)),
    ]),
    h("h3", {}, "Tools of the app"),
    h("div", { class: "chips" }, entry.tools.map(tool)),
    answers(entry, "Approve agents"),
  );
}

const stepWords = { done: "done", running: "under way", failed: "failed", waiting: "waits" };

function build(entry) {
  const step = ({ label, state }) =>
    h(
      "li",
      { class: state },
      h("span", { class: "tick" }, state === "done" || state === "failed" ? icon(state) : ""),
      label,
      h("span", { class: "unseen" }, `, ${stepWords[state]}`),
    );
  const title = { running: "Building", done: "Built", failed: "The build failed" }[entry.state];
  return card(
    entry,
    title,
    entry.state === "running" &&
      h("progress", { value: entry.progress, max: 1, "aria-label": "Build progress" }),
    h("ol", { class: "steps" }, entry.steps.map(step)),
    entry.state === "done" && result(entry),
    entry.state === "failed" && failure(entry),
  );
}

function result(entry) {
  const { bundle } = entry;
  return [
    h(
      "button",
      { type: "button", class: "tile", onclick: openApp },
      h(
        "span",
        { class: "figures", "aria-hidden": "true" },
        state.app.preview.figures.map(([label, value]) =>
          h("span", {}, h("strong", {}, value), h("span", { class: "muted small" }, label)),
        ),
      ),
      h("span", { class: "tile-foot" }, state.app.name, h("span", {}, "Open")),
    ),
    h(
      "p",
      { class: "muted small" },
      `${bundle.file_count} files, ${Math.round(bundle.total_bytes / 1024)} KB`,
    ),
    bundle.warning && h("p", { class: "small" }, h("span", { class: "badge review" }, "Warning"), ` ${bundle.warning}`),
  ];
}

function failure(entry) {
  const { fault } = entry;
  const last = state.thread.filter((each) => each.type === "build").at(-1);
  return [
    h("p", { class: "error" }, fault.text),
    last.id === entry.id &&
      h(
        "div",
        { class: "row start" },
        h(
          "button",
          {
            type: "button",
            class: "button primary",
            onclick: handle(async () => show(await post(`${path}/builds`))),
          },
          "Try again",
        ),
        fault.integration &&
          h(
            "a",
            {
              class: "button",
              href: `${page.root}/settings/integrations/${fault.integration}?from=app_chat`,
            },
            icon("plug"),
            "Set up the integration",
          ),
      ),
  ];
}

const draw = { message, suggestions, plan, agents, build };

// An entry is drawn again only when what it says has changed: what is being typed stays.
function render() {
  for (const entry of state.thread) {
    const last = state.thread.filter((each) => each.type === "build").at(-1);
    const json = JSON.stringify([entry, entry.type === "build" && last.id === entry.id]);
    const before = drawn.get(entry.id);
    if (before?.json === json) continue;
    const element = draw[entry.type](entry);
    if (before) before.element.replaceWith(element);
    else thread.append(element);
    drawn.set(entry.id, { element, json });
  }
  const busy = state.thread.some((entry) => entry.state === "running");
  const waiting = state.thread.some((entry) => entry.open);
  for (const control of ask.elements) control.disabled = busy || waiting;
  ask.elements.message.placeholder = waiting
    ? "Answer the card above first"
    : busy
      ? "Building…"
      : "Ask for a change";
}

// What happened

const badges = { building: "Building", review: "Waits for you", ready: "Ready", failed: "Build failed", draft: "Draft" };

function show(answer) {
  const grew = answer.thread.length > state.thread.length;
  state = answer;
  render();
  showState(answer);
  tell(answer);
  if (grew) {
    scrollToEnd();
    $("#said").textContent = thread.lastElementChild.firstElementChild.textContent;
  }
  if (answer.busy) follow();
}

// The app's state stands in three places: beside its name, in the rail, in the count of reviews.
function showState({ app, waiting }) {
  $("#app-state").replaceChildren(h("span", { class: `badge ${app.state}` }, badges[app.state]));
  $("#rail [aria-current] .dot").className = `dot ${app.state}`;
  $("#rail .count").hidden = !waiting;
  $("#rail .count span").textContent = waiting;
}

const scrollToEnd = () => thread.lastElementChild.scrollIntoView({ block: "end" });

let following = false;

async function follow() {
  if (following) return;
  following = true;
  await wait(POLL_MS);
  following = false;
  try {
    show(await post(`${path}/catch-up`));
  } catch {
    toast("The connection was lost. Reload to see how the build went.");
  }
}

// What a person does

async function act(entry, action, word = "") {
  const answer = await post(`${path}/acts`, { entry: entry.id, action, word });
  usage.approvalActed(state.app, entry, action, word);
  show(answer);
  // The button that had the focus is gone: go on where the answer is.
  thread.lastElementChild.focus({ preventScroll: true });
}

function openApp() {
  const { name, preview } = state.app;
  appWindow.replaceChildren(
    h(
      "header",
      { class: "dialog-head" },
      h("h2", { id: "window-title" }, name),
      h(
        "button",
        { type: "button", class: "quiet square", onclick: () => appWindow.close() },
        icon("close"),
        h("span", { class: "unseen" }, "Close"),
      ),
    ),
    h(
      "div",
      { class: "figures" },
      preview.figures.map(([label, value]) =>
        h("p", {}, h("strong", {}, value), h("span", { class: "muted small" }, label)),
      ),
    ),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h("tr", {}, preview.columns.map((column) => h("th", { scope: "col" }, column))),
        ),
        h(
          "tbody",
          {},
          preview.rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))),
        ),
      ),
    ),
  );
  appWindow.showModal();
  usage.appDisplayed(state.app);
}

sendOnEnter(ask.elements.message);
ask.addEventListener(
  "submit",
  handle(async () => {
    const text = ask.elements.message.value.trim();
    if (!text) return;
    const first = !state.app.has_chat;
    const answer = await post(`${path}/messages`, { message: text });
    ask.reset();
    if (first)
      usage.chatInitiated({
        app: state.app,
        agent: { type: "builder", id: "builder", name: "Builder" },
        source: "app_chat",
        model: state.app.runtime,
        message: text,
      });
    show(answer);
  }),
);

render();
scrollToEnd();
post(`${path}/catch-up`).then(show, () => toast("The chat could not be read. Reload the page."));
if (location.hash === "#open" && state.app.bundle) openApp();
