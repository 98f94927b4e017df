// The list: newest first, only the rows in sight are in the document, and what one looks at stays
// where it is when something new arrives.

import { el, moment, plural, shortened } from "./dom.js";

/** Rows above and below the visible ones that are kept ready. */
const SPARE = 6;

export class List {
  /**
   * @param box the scrolling listbox, with a spacer in it
   * @param news the button that leads to what arrived above
   * @param opened called with the row that was chosen
   */
  constructor(box, spacer, news, opened) {
    this.box = box;
    this.spacer = spacer;
    this.news = news;
    this.opened = opened;
    this.all = []; // oldest first, so that an arrival is a push
    this.shown = []; // those of `all` that pass the filter
    this.byId = new Map();
    this.drawn = new Map();
    this.filter = () => true;
    this.selected = null;
    this.unseen = 0;
    this.measure();
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    box.addEventListener("click", (event) => this.clicked(event));
    news.addEventListener("click", () => {
      box.scrollTop = 0;
      this.draw();
      box.focus();
    });
    new ResizeObserver(() => this.measure()).observe(box);
  }

  measure() {
    const probe = el("div", { class: "row" });
    this.spacer.append(probe);
    this.height = probe.offsetHeight || 60;
    probe.remove();
    this.drawn.forEach((element) => element.remove());
    this.drawn.clear();
    this.draw();
  }

  /** Forget every row. */
  reset() {
    this.all = [];
    this.byId.clear();
    this.selected = null;
    this.unseen = 0;
    this.box.scrollTop = 0;
    this.refilter();
  }

  /** Take rows that are new or have changed; return whether the selected one was among them. */
  take(rows) {
    let arrived = 0;
    let changed = false;
    for (const row of rows) {
      const known = this.byId.get(row.id);
      if (known) {
        Object.assign(known, row);
        changed ||= row.id === this.selected;
        this.redraw(row.id);
        continue;
      }
      this.byId.set(row.id, row);
      this.all.push(row);
      if (this.filter(row)) {
        this.shown.push(row);
        arrived += 1;
      }
    }
    if (arrived) this.arrive(arrived);
    this.draw();
    return changed;
  }

  /** Keep what is looked at where it is, unless nobody looks and the top is in sight. */
  arrive(count) {
    const looking =
      document.hasFocus() &&
      (this.box.matches(":hover") || this.box.contains(document.activeElement));
    if (this.shown.length === count || (this.box.scrollTop < 1 && !looking)) return;
    this.unseen += count;
    const top = this.box.scrollTop + count * this.height;
    this.stretch(top);
    this.box.scrollTop = top;
  }

  /** A list too short to scroll gets room below, so that it can hold its place. */
  stretch(top) {
    const rows = this.shown.length * this.height;
    const room = top >= 1 ? top + this.box.clientHeight : 0;
    this.spacer.style.height = `${Math.max(rows, room)}px`;
  }

  /** Let the rows before this id go: they are no longer kept. */
  forget(oldest) {
    const gone = this.all.findIndex((row) => row.id >= oldest);
    const dropped = this.all.splice(0, gone === -1 ? this.all.length : gone);
    if (!dropped.length) return;
    for (const row of dropped) this.byId.delete(row.id);
    const kept = this.shown.findIndex((row) => row.id >= oldest);
    this.shown.splice(0, kept === -1 ? this.shown.length : kept);
    this.draw();
  }

  /** Show only rows that pass. */
  refilter(filter = this.filter) {
    this.filter = filter;
    this.shown = this.all.filter(filter);
    this.unseen = 0;
    this.box.scrollTop = 0;
    this.draw();
  }

  // Newest first: position 0 is the last of `shown`.
  at(position) {
    return this.shown[this.shown.length - 1 - position];
  }

  positionOf(id) {
    // Ids grow along `shown`.
    let low = 0;
    let high = this.shown.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.shown[middle].id < id) low = middle + 1;
      else high = middle;
    }
    return this.shown[low]?.id === id ? this.shown.length - 1 - low : -1;
  }

  /** Select the row `steps` further down (older), or at an end. */
  move(steps) {
    if (!this.shown.length) return;
    const from = this.selected === null ? -1 : this.positionOf(this.selected);
    // With nothing selected, any step down leads to the newest.
    const to = from === -1 && Number.isFinite(steps) ? 0 : from + steps;
    this.choose(this.at(Math.max(0, Math.min(this.shown.length - 1, to))));
  }

  /** Rows that fit, for the page keys. */
  get page() {
    return Math.max(1, Math.floor(this.box.clientHeight / this.height) - 1);
  }

  choose(row) {
    this.select(row.id);
    this.reveal(this.positionOf(row.id));
    this.opened(row);
  }

  select(id) {
    const before = this.selected;
    this.selected = id;
    this.redraw(before);
    this.redraw(id);
    this.draw();
  }

  reveal(position) {
    if (position < 0) return;
    const top = position * this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + this.height > this.box.scrollTop + this.box.clientHeight) {
      this.box.scrollTop = top + this.height - this.box.clientHeight;
    }
    this.draw();
  }

  clicked(event) {
    const row = event.target.closest(".row");
    if (row) this.choose(this.byId.get(Number(row.dataset.id)));
  }

  redraw(id) {
    const element = this.drawn.get(id);
    if (!element) return;
    element.remove();
    this.drawn.delete(id);
  }

  /** Bring the document up to what is in sight. */
  draw() {
    const top = this.box.scrollTop;
    this.stretch(top);
    const first = Math.max(0, Math.floor(top / this.height) - SPARE);
    const last = Math.min(
      this.shown.length,
      Math.ceil((top + this.box.clientHeight) / this.height) + SPARE,
    );
    const wanted = new Set();
    for (let position = first; position < last; position += 1) {
      const row = this.at(position);
      wanted.add(row.id);
      let element = this.drawn.get(row.id);
      if (!element) {
        element = drawn(row, row.id === this.selected);
        this.drawn.set(row.id, element);
        this.spacer.append(element);
      }
      element.style.transform = `translateY(${position * this.height}px)`;
      element.setAttribute("aria-posinset", position + 1);
      element.setAttribute("aria-setsize", this.shown.length);
    }
    for (const [id, element] of this.drawn) {
      if (wanted.has(id)) continue;
      element.remove();
      this.drawn.delete(id);
    }
    if (this.drawn.has(this.selected)) {
      this.box.setAttribute("aria-activedescendant", `row-${this.selected}`);
    } else this.box.removeAttribute("aria-activedescendant");
    this.box.hidden = !this.shown.length;
    const above = Math.floor(top / this.height);
    this.unseen = Math.min(this.unseen, above);
    this.news.hidden = !this.unseen;
    this.news.textContent = `↑ ${plural(this.unseen, "new event")}`;
  }
}

function drawn(row, selected) {
  const refused = row.kind === "refused" || row.result === "drop";
  return el(
    "div",
    {
      class: `row${refused ? " refused" : ""}`,
      id: `row-${row.id}`,
      role: "option",
      "aria-selected": String(selected),
      "data-id": row.id,
    },
    el(
      "span",
      { class: "name" },
      el("b", { text: row.event }),
      row.repeats ? el("span", { class: "tag", text: `×${row.repeats + 1}` }) : null,
    ),
    el("time", { datetime: row.at, text: moment(row.at) }),
    refused ? wrong(row) : who(row),
    el("span", { class: "lost", text: lost(row) }),
  );
}

function who(row) {
  return el(
    "span",
    { class: "who" },
    badge(row.mode),
    el("span", { class: "mono", text: shortened(row.distinct_id) }),
    row.result === "warning" ? el("span", { class: "tag wait", text: "warning" }) : null,
  );
}

const wrong = (row) =>
  el(
    "span",
    { class: "who" },
    el("span", { class: "badge refused", text: row.kind === "refused" ? "refused" : "not stored" }),
    el("span", { class: "words", text: row.details ?? "" }),
  );

/** The mode: a word and a shape, not a colour alone. */
export const badge = (mode) => el("span", { class: `badge ${mode}`, text: mode });

function lost(row) {
  if (row.dropped) return `${row.dropped} dropped`;
  return row.redacted ? `${row.redacted} redacted` : "";
}
