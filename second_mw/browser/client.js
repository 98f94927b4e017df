// The browser client: captures events on a page and posts them to the endpoint beside this file.
//
// What lives here: page views, page context, the queue, the anonymous id, when to post and when to
// be quiet. What does not: privacy rules. The server judges every key and value again and trusts
// nothing said here; what this file leaves out in anonymized mode never travels at all.
// The dialog is in settings.js, which tells of a change with `second-usage-data-change`.
//
//   <script src="/api/analytics/client.js" defer></script>
//   data-mode="anonymized|identified" data-subject="1a2b"   what the server knows of this user;
//                                                           both, or the client asks
//   data-hash            the page's path is in the hash     data-manual   no page views by itself
//   data-consent="ask"   users are asked first: nothing is posted before the server has said yes
//
// Nothing here may throw into the page, hold it up, or keep a list that grows without bound.
(() => {
  "use strict";

  // Twice on a page would count every view twice.
  if (window.secondAnalytics) return;

  const script = document.currentScript || {};
  const options = script.dataset || {};
  const base = new URL(".", script.src || `${location.origin}/api/analytics/`).href;

  // Milliseconds
  const BATCH_EVERY = 2000;
  const MODE_WITHIN = 3000;
  const ANSWER_WITHIN = 30000;
  const LONGEST_REST = 3600000; // a timer of weeks would overflow and fire at once
  const TRIES = 7; // the rests between them double: one to two minutes in all, then quiet
  const MOST_WAITING = 1000;
  const MOST_KEPT = 100;
  const MOST_BYTES = 60000; // browsers give beacons and keepalive 64 KiB, all of a page's together

  const ID = "second:analytics-anonymous-id:v1";
  const SUBJECT = "second:analytics-subject:v1"; // whose the id is: four hex digits of a keyed hash
  const KEPT = "second:analytics-queue:v1";
  const SIGNED_OUT = "signed out"; // for a moment in the id's place: other tabs hear of it

  let mode; // undefined: not known yet; anonymized, identified; guess: anonymized, without an id; off
  let subject;
  let over; // signed out: off until the next page load, whatever is heard
  let leaving;
  let drafts = []; // events that wait for the mode
  let queue = []; // events as they will be posted
  let underway = []; // those on their way, which come back into the queue if they have to
  let most = 100;
  let timer;
  let resting;
  let failures = 0;
  let turn = 0; // the latest question to the server; an answer to an older one doesn't count
  let known;
  let sending;
  let lastPath;

  // An event lost is better than a page broken.
  const safe = (work) => function (...given) {
    try {
      return work.apply(this, given);
    } catch {}
  };
  const parsed = safe(JSON.parse);
  const copy = (value, replacer) => JSON.parse(JSON.stringify(value, replacer));
  const on = (target, types, work, how) =>
    types.split(" ").forEach((type) => target.addEventListener(type, safe(work), how));

  // Storage; memory where it is blocked or full

  const memory = {};

  function read(key) {
    try {
      return localStorage.getItem(key) || memory[key];
    } catch {
      return memory[key];
    }
  }

  // Without a value: removes it.
  function write(key, value) {
    try {
      if (value) localStorage.setItem(key, value);
      else localStorage.removeItem(key);
      delete memory[key];
    } catch {
      memory[key] = value;
    }
  }

  const forget = (...keys) => keys.forEach((key) => write(key));

  // Identity

  function uuid() {
    // Not randomUUID: it is there in secure contexts only. The 4 is RFC 9562's version, the 8 its
    // variant; what is left are 30 random digits.
    const bytes = crypto.getRandomValues(new Uint8Array(36));
    return "xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx".replace(/x/g, (_, at) =>
      (bytes[at] & 15).toString(16),
    );
  }

  function anonymousId() {
    // Read anew for each event: other tabs and the settings may have changed it.
    let id = read(ID);
    if (read(SUBJECT) !== subject || !/^anon_[\da-f-]{36}$/.test(id)) {
      id = `anon_${uuid()}`;
      write(SUBJECT, subject);
      write(ID, id);
    }
    return id;
  }

  // Page context: words this file knows, and shapes of routes; nothing else of an address

  const WORDS = (
    "apps library reviews available-apps settings onboarding chat agents intro workspace finish " +
    "overview members teams integrations connected-apps runtime-settings source-control " +
    "audit-logs diagnostics"
  ).split(" ");

  function path() {
    const hash = "hash" in options && /^#!?(\/[^?]*)/.exec(location.hash);
    return hash ? hash[1] : location.pathname;
  }

  function shapeOf(parts, inside) {
    const shape = (part, at) => {
      if (!part || /^:\w+$/.test(part) || (inside && at < 2)) return part;
      if (inside && at < 3) return ":workspace";
      if (/^[\da-f]{24}$/i.test(part)) return ":objectId";
      if (/^[\da-f-]{36}$/i.test(part)) return ":uuid";
      if (!inside) return /^([a-z]{1,20}\d{0,2}[-_.]?){1,5}$/i.test(part) ? part : ":id";
      if (parts[at - 1] === "agents") return ":agent";
      if (parts[at - 1] === "integrations" && parts[at - 2] === "settings") return ":integration";
      return WORDS.includes(part) ? part : ":segment";
    };
    return parts.map(shape).join("/");
  }

  function context(where) {
    const parts = where.split("/");
    const inside = parts[1] === "w" && parts[2];
    const [place, part, section] = parts.slice(inside ? 3 : 1);
    const found = {
      route_shape: shapeOf(parts, inside),
      viewport_width: innerWidth,
      viewport_height: innerHeight,
    };
    const is = (surface, key, word) => {
      found.surface = surface;
      if (word) found[key] = WORDS.includes(word) ? word : "other";
    };
    if (place === "onboarding") is(place, "onboarding_step", part);
    else if (!inside) is("public");
    else if (!place) is("workspace_home");
    else if (place === "apps" && part)
      is(section === "agents" ? "app_agents" : "app_chat", "app_section", section || "chat");
    else if (place === "settings") is(place, "settings_section", part || "overview");
    else if (place === "agents") is("workspace_agents");
    else if (place === "library" || place === "reviews") is(place);
    else is("workspace", "workspace_section", place);
    return found;
  }

  // Events

  // The catalogue's keys of free text and of what identifies, and endings that the server drops
  // anyway; a test holds this and the catalogue together.
  const PRIVATE =
    /^(page_url|pathname|referrer|message|prompt|error|suggestions|agents|workspace_role|suggestion_(sub)?titles?|plan_(title|overview|features|data_flow|agents|backend)|agent_(descriptions|system_prompts)|(?!runtime_id$).*_(ids?|names?|domains))$/i;

  const isPrivate = (key) => PRIVATE.test(key.replace(/([a-z\d])([A-Z])/g, "$1_$2").replace(/\W+/g, "_"));

  // The page may change an object after capture, and may hand over one that can't be written as
  // JSON (a cycle, a BigInt, a getter that throws): then the rest of it still counts.
  function copyOf(properties) {
    const own = {};
    const put = safe((key) => {
      own[key] = copy(properties[key]);
    });
    safe(() => Object.keys(properties).forEach(put))();
    return own;
  }

  function stamp({ own, around, page, ...event }, as) {
    // Where a user is asked first, what nobody has allowed is not sent on a guess.
    if (as === "guess" && options.consent === "ask") return;
    // An event may ask for anonymity itself.
    const anonymized = as !== "identified" || ("anonymized" in own && own.anonymized !== false);
    if (anonymized) own = copy(own, (key, value) => (isPrivate(key) ? undefined : value));
    const { route_shape } = around;
    event.properties = { ...around, ...(!anonymized && page), ...own, route_shape, anonymized };
    if (as !== "guess" && subject) {
      event.subject = subject;
      if (as === "anonymized") event.anonymousDistinctId = anonymousId();
    }
    queue.push(event);
  }

  const stampDrafts = (as) => drafts.splice(0).forEach((draft) => stamp(draft, as));

  function capture(name, properties) {
    if (mode === "off" || drafts.length + queue.length >= MOST_WAITING) return;
    const own = copyOf(properties);
    drafts.push({
      event: `${name}`,
      uuid: uuid(),
      timestamp: new Date().toISOString(),
      own,
      around: context(`${own.route_shape || path()}`), // a page may know better where it is
      page: { page_url: location.href, pathname: path(), referrer: document.referrer },
    });
    if (mode) stampDrafts(mode);
    if (leaving) leave();
    else soon();
  }

  // The mode: from the script tag, else from the server, else after a while the careful guess

  function become(as) {
    mode = as;
    stampDrafts(as);
    soon();
  }

  function adopt({ enabled, sharing, effective, subject: whose }) {
    turn++;
    if (over) return;
    if (!enabled || !sharing) {
      stop();
      return;
    }
    if (subject && subject !== whose) queue = underway = [];
    subject = whose;
    const isIdentified = effective === "identified";
    if (isIdentified || read(SUBJECT) !== subject) forget(ID, SUBJECT);
    restore();
    become(isIdentified ? effective : "anonymized");
  }

  function ask() {
    if (over) return;
    const mine = ++turn;
    mode = undefined;
    const answered = async (response) => {
      // A refusal other than "nobody is signed in" says nothing about the mode.
      const answer = response.status === 401 ? {} : response.ok && (await response.json());
      if (mine === turn) adopt(answer || null);
    };
    // An answer that comes later still counts.
    known = Promise.race([
      fetch(`${base}preferences`, { credentials: "include" }).then(answered),
      new Promise((_, late) => setTimeout(late, MODE_WITHIN)),
    ]).catch(() => mine === turn && !mode && become("guess"));
  }

  function stop() {
    mode = "off";
    subject = undefined;
    drafts = [];
    queue = underway = [];
    forget(ID, SUBJECT, KEPT);
  }

  function signOut() {
    leave(true);
    over = true;
    stop();
  }

  function reset() {
    if (over) return;
    restore(); // what hidden tabs have kept
    write(ID, SIGNED_OUT);
    signOut();
  }

  // What could not be posted waits in storage: anonymized events only, and only their owner's

  const kept = () => [].concat(parsed(read(KEPT)) || []);

  function keep() {
    // What is on its way may get lost with the page; what arrives twice counts once.
    queue.unshift(...underway);
    underway = [];
    const ours = ofMode(true).filter((event) => event.subject);
    if (ours[0]) write(KEPT, JSON.stringify(kept().concat(ours).slice(-MOST_KEPT)));
    drop(ours);
  }

  function restore() {
    if (!subject) return;
    queue.unshift(...kept().filter((event) => event && event.subject === subject));
    forget(KEPT);
  }

  // Posting

  const bodyOf = (batch) => JSON.stringify({ batch });
  const fits = (batch) => batch.length <= most && new Blob([bodyOf(batch)]).size < MOST_BYTES;
  const drop = (events) => {
    queue = queue.filter((event) => !events.includes(event));
  };
  const ofMode = (anonymized) => queue.filter((e) => e.properties.anonymized === anonymized);

  function soon() {
    timer = timer || setTimeout(send, BATCH_EVERY);
  }

  function send() {
    clearTimeout(timer);
    timer = 0;
    const done = () => {
      sending = 0;
    };
    sending = sending || post().then(done, done);
    return sending;
  }

  async function post() {
    while (mode && !resting && queue[0]) {
      // What one request takes; it never mixes modes.
      let batch = ofMode(queue[0].properties.anonymized);
      while (batch[1] && !fits(batch)) batch = batch.slice(0, batch.length >> 1);
      drop(batch);
      underway = batch;
      let status;
      let after;
      let results;
      try {
        const response = await fetch(`${base}capture`, {
          method: "POST",
          body: bodyOf(batch),
          headers: { "Content-Type": "application/json" },
          credentials: "include",
          keepalive: fits(batch), // so that a link followed now loses nothing
          signal: safe(() => AbortSignal.timeout(ANSWER_WITHIN))(), // not in every browser
        });
        after = response.headers.get("Retry-After");
        // A 200 without results is not the endpoint's: a sign-in page, a captive portal.
        if (response.status === 200) results = (await response.json()).results || {};
        ({ status } = response);
      } catch {}
      judge(batch, status, after, results);
      underway = [];
    }
  }

  function judge(batch, status, after, results) {
    if (status === 401 || status === 403) {
      stop(); // nobody is signed in, or not onboarded
      return;
    }
    const tooLarge = status === 413 && batch.length > 1;
    const failed = tooLarge || !status || status === 429 || status > 499;
    const again = batch.filter((event) => failed || (results && !results[event.uuid]));
    // Unless somebody else has signed in, nobody wants them any more, or they are kept.
    queue.unshift(...underway.filter((event) => again.includes(event)));
    if (tooLarge) {
      most = batch.length >> 1;
    } else if (again.length === batch.length) {
      rest(after);
    } else {
      failures = 0;
      const isStrange = (event) => (results[event.uuid] || {}).error === "other_user";
      // Nothing was taken of this user, or somebody else is signed in by now.
      if (results ? batch.some(isStrange) : status === 204 || status === 409) ask();
    }
  }

  function rest(after) {
    const backoff = 2 ** failures++ * 1000 * (1 + Math.random());
    const asked = after * 1000 || Date.parse(after) - Date.now() || 0; // seconds or a date
    const wake = () => {
      resting = 0;
      send();
    };
    // Quiet from then on, until the browser says that it is online again.
    resting =
      failures >= TRIES || setTimeout(wake, Math.min(Math.max(backoff, asked), LONGEST_REST));
  }

  // The page goes, or may never come back: timers and answers can't be relied on any more.
  function leave(signingOut) {
    if (!mode) stampDrafts("guess");
    const offline = !navigator.onLine;
    if (!signingOut && (failures || offline)) keep();
    // A beacon says that all is well even then.
    if (offline) return;
    [true, false].map(ofMode).forEach(beam);
    if (queue[0]) send();
  }

  // Browsers refuse a beacon when too much is under way already; the half of it may still go.
  function beam(batch) {
    const half = batch.length >> 1;
    if (!batch[0]) return;
    if (fits(batch) && safe(() => navigator.sendBeacon(`${base}capture`, bodyOf(batch)))()) drop(batch);
    else if (half) [batch.slice(0, half), batch.slice(half)].forEach(beam);
  }

  // Page views

  function view() {
    const here = location.pathname + ("hash" in options ? location.hash : "");
    if ("manual" in options || here === lastPath) return;
    lastPath = here;
    capture("page viewed");
  }

  function watchPath() {
    for (const name of ["pushState", "replaceState"]) {
      const original = history[name];
      history[name] = function (...given) {
        const result = original.apply(this, given);
        safe(view)();
        return result;
      };
    }
    on(window, "popstate hashchange", view);
    view();
  }

  // Declared in the page: data-second-event, data-second-prop-*, data-second-sign-out

  function declared({ type, target }) {
    // A form's own attributes are about its being sent, not about clicks in it.
    const tag = type === "submit" ? "form" : ":not(form)";
    const found = (name) => target.closest(`${tag}[data-second-${name}]`);
    const element = found("event");
    if (element) {
      const properties = {};
      for (const { name, value } of element.attributes) {
        const [, key] = name.split("data-second-prop-");
        const json = parsed(value); // 3 and true are what they look like, 007 and draft are text
        if (key) properties[key.replace(/-/g, "_")] = json === undefined ? value : json;
      }
      capture(element.dataset.secondEvent, properties);
    }
    if (found("sign-out")) reset();
  }

  function start() {
    on(window, "second-usage-data-change", (event) => adopt(event.detail));
    on(window, "click submit", declared, true);
    on(document, "visibilitychange", () => {
      if (document.hidden) leave();
      else {
        restore();
        soon();
      }
    });
    on(window, "pagehide pageshow", ({ type, persisted }) => {
      leaving = type === "pagehide";
      if (leaving) leave();
      else if (persisted) {
        // Somebody else may have signed in while this page lay in the cache.
        ask();
        lastPath = undefined;
        view();
      }
    });
    on(window, "online", () => {
      clearTimeout(resting);
      resting = failures = 0;
      restore();
      if (mode === "guess") ask();
      else send();
    });
    on(window, "storage", ({ key, newValue }) => {
      if (key === ID && newValue === SIGNED_OUT) signOut();
      else if ((key === ID || !key) && !newValue === (mode === "anonymized")) ask();
    });

    // Under Global Privacy Control only the server's answer makes a user identified.
    const { mode: effective, subject } = options;
    const isKnown =
      effective === "anonymized" || (effective === "identified" && !navigator.globalPrivacyControl);
    if (isKnown && subject) adopt({ enabled: 1, sharing: 1, effective, subject });
    else ask();
    watchPath();
  }

  window.secondAnalytics = {
    capture: safe(capture),
    reset: safe(reset),
    // Resolves when what waits has been tried; never rejects.
    flush: safe(() => Promise.resolve(mode || known).then(send)),
  };

  // A page that is only prerendered has not been seen by anybody.
  if (document.prerendering) on(document, "prerenderingchange", start, { once: true });
  else safe(start)();
})();
