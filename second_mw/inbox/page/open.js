// The open event: what became of each property, what PostHog receives, the batch, the answer.

import { copy, el, moment, plural } from "./dom.js";
import { badge } from "./list.js";

/** Longer JSON is shown without colours: a span for each token would cost more than it gives. */
const COLOURED = 100_000;

/**
 * The article's content for one entry.
 * @param entry what /api/entries/… says
 * @param act {open, filter}: called with an entry's id, with a distinct_id
 */
export function opened(entry, act) {
  const parts = entry.row.kind === "event" ? event(entry, act) : refused(entry);
  return [...parts, ...batch(entry, act), ...answer(entry)].filter(Boolean);
}

function event(entry, act) {
  const { row } = entry;
  return [
    el(
      "header",
      { class: "head" },
      el("h2", { text: row.event }),
      badge(row.mode),
      el("button", {
        type: "button",
        id: "copy",
        text: "Copy JSON",
        onclick: () => copy(entry.json, "JSON"),
      }),
    ),
    row.result === "drop"
      ? el("p", { class: "banner bad", text: `PostHog would not store it: ${row.details}` })
      : null,
    ...entry.notes.map((note) => el("p", { class: "banner wait", text: note })),
    facts([
      ["distinct_id", row.distinct_id, button("Only this one", () => act.filter(row.distinct_id))],
      ["uuid", entry.uuid],
      ["timestamp", entry.timestamp],
      ["arrived", row.at, el("span", { class: "muted", text: repeated(row) })],
    ]),
    el("h3", { text: "What became of each property" }),
    el("p", { class: "muted sum", text: sum(entry) }),
    table(entry),
    el("h3", { text: "What PostHog receives" }),
    json(entry.json),
  ];
}

function refused(entry) {
  return [
    el(
      "header",
      { class: "head" },
      el("h2", { text: "A request was refused" }),
      el("span", { class: "badge refused", text: entry.status ? String(entry.status) : "no answer" }),
    ),
    el("p", { class: "banner bad", text: entry.refused }),
    ...(entry.excerpt
      ? [el("h3", { text: "What was sent" }), json(pretty(entry.excerpt))]
      : []),
  ];
}

const repeated = (row) =>
  row.repeats ? `came ${plural(row.repeats + 1, "time")}, stored once` : "";

const button = (text, onclick) => el("button", { type: "button", class: "plain", text, onclick });

function facts(rows) {
  const list = el("dl", { class: "facts" });
  for (const [name, value, more] of rows) {
    if (value === undefined || value === null || value === "") continue;
    list.append(
      el(
        "div",
        {},
        el("dt", { text: name }),
        el("dd", {}, el("span", { class: "mono", text: value }), more),
      ),
    );
  }
  return list;
}

// -- properties --

function sum(entry) {
  if (!entry.has_receipt) {
    return "No receipt: the app does not hand its receipts to this inbox, so only what left is known.";
  }
  const counts = new Map();
  for (const { result } of entry.properties) counts.set(result, (counts.get(result) ?? 0) + 1);
  return ["dropped", "redacted", "bounded", "kept", "added"]
    .filter((result) => counts.has(result))
    .map((result) => `${counts.get(result)} ${result}`)
    .join(" · ");
}

function table(entry) {
  if (!entry.properties.length) return el("p", { text: "It has no properties." });
  const heads = ["Property", "Value", "What happened"];
  return el(
    "table",
    { role: "table" },
    el(
      "thead",
      { role: "rowgroup" },
      el(
        "tr",
        { role: "row" },
        ...heads.map((text) => el("th", { role: "columnheader", scope: "col", text })),
      ),
    ),
    el("tbody", { role: "rowgroup" }, ...entry.properties.map(property)),
  );
}

function property(row) {
  const key = row.group === "dropped" ? el("s", { text: row.key }) : el("span", { text: row.key });
  return el(
    "tr",
    { role: "row", class: `${row.result ?? "unknown"}${row.nested ? " nested" : ""}` },
    el("th", { role: "rowheader", scope: "row", class: "mono" }, key),
    el("td", { role: "cell", class: "mono value", text: row.value ?? (row.nested ? "" : "–") }),
    el("td", { role: "cell", class: "words", text: row.words }),
  );
}

// -- JSON --

function json(text) {
  const block = el("pre", { class: "json", tabindex: "0", "aria-label": "JSON" });
  if (text.length > COLOURED) block.textContent = text;
  else block.append(...coloured(text));
  return block;
}

const TOKEN = /("(?:\\.|[^"\\])*")(\s*:)?|-?\d[\d.eE+-]*|\b(?:true|false|null)\b/g;

function* coloured(text) {
  let from = 0;
  for (const found of text.matchAll(TOKEN)) {
    if (found.index > from) yield text.slice(from, found.index);
    const kind = found[2] !== undefined ? "key" : found[1] !== undefined ? "string" : "word";
    yield el("span", { class: kind, text: found[1] ?? found[0] });
    if (found[2] !== undefined) yield found[2];
    from = found.index + found[0].length;
  }
  yield text.slice(from);
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

// -- the batch and the answer --

function batch(entry, act) {
  const asked = entry.asked;
  if (!asked) return [el("p", { class: "muted", text: "Its request is no longer kept." })];
  const others = entry.batch.filter((each) => each.id !== entry.row.id);
  return [
    el("h3", { text: "The batch it came in" }),
    facts([
      ["request", `${asked.method} ${asked.path}`],
      ["protocol", asked.protocol],
      ["arrived", entry.asked_at && moment(entry.asked_at)],
      ["body", size(asked)],
      ["events", asked.events ? String(asked.events) : ""],
      ["attempt", asked.attempt],
      ["request id", asked.request_id],
      ["sent at", asked.sent_at],
      ["token", asked.token],
      ["sdk", asked.sdk],
      ["user agent", asked.user_agent],
      ["historical", asked.historical_migration ? "yes" : ""],
    ]),
    others.length
      ? el(
          "ul",
          { class: "siblings", "aria-label": "Other events of the batch" },
          ...others.map((each) =>
            el(
              "li",
              {},
              button(each.event, () => act.open(each.id)),
              each.details ? el("span", { class: "muted", text: ` ${each.details}` }) : null,
            ),
          ),
        )
      : null,
  ];
}

function size(asked) {
  const sent = bytes(asked.size);
  if (!asked.encoding || asked.inflated === undefined) return sent;
  return `${sent} ${asked.encoding}, ${bytes(asked.inflated)} inflated`;
}

const bytes = (count) =>
  count < 1024 ? plural(count, "byte") : `${(count / 1024).toFixed(1)} KiB`;

function answer(entry) {
  if (!entry.asked) return [];
  return [
    el("h3", { text: "The answer given" }),
    el("p", {
      class: entry.status === 200 ? "" : "banner bad",
      text: entry.status ? `Status ${entry.status}` : "None: the connection was closed.",
    }),
    entry.answer ? json(entry.answer) : null,
  ];
}
