// Agents: those of an app, which run and are followed, and the workspace's, which are asked.

import { $, $$, h, handle, page, post, sendOnEnter, toast, wait } from "./page.js";
import { tell } from "./news.js";
import * as usage from "./usage.js";

const POLL_MS = 300;
const outcome = (key) => $(`[data-outcome="${CSS.escape(key)}"]`);

for (const textarea of $$("main textarea")) sendOnEnter(textarea);

// Agents of an app

const path = page.app && `/apps/${page.app.id}`;
let following = false;

function show(answer) {
  for (const agent of answer.agents) {
    const run = answer.runs.filter((each) => each.agent_id === agent.id).at(-1);
    if (run) outcome(agent.id).replaceChildren(line(run));
  }
  tell(answer);
  if (answer.busy) follow();
}

function line(run) {
  if (run.state === "running") return h("p", { class: "muted" }, "Running…");
  if (run.state === "done") return h("p", {}, run.answer);
  return h(
    "p",
    { class: "error" },
    `${run.fault.text} `,
    h(
      "a",
      { href: `${page.root}/settings/integrations/${run.fault.integration}?from=app_chat` },
      "Set it up",
    ),
  );
}

async function follow() {
  if (following) return;
  following = true;
  await wait(POLL_MS);
  following = false;
  try {
    show(await post(`${path}/catch-up`));
  } catch {
    toast("The connection was lost. Reload to see how the run went.");
  }
}

for (const form of $$("[data-agent]"))
  form.addEventListener(
    "submit",
    handle(async () => {
      const prompt = form.elements.prompt.value.trim() || form.elements.prompt.placeholder;
      const answer = await post(`${path}/agents/${form.dataset.agent}/runs`, { prompt });
      const agent = answer.agents.find((each) => each.id === form.dataset.agent);
      usage.agentTriggered(answer.app, agent, answer.run);
      show(answer);
    }),
  );

if (path) post(`${path}/catch-up`).then(show, () => toast("Reload the page to see the agents."));

// Agents of the workspace

for (const form of $$("[data-workspace-agent]"))
  form.addEventListener(
    "submit",
    handle(async () => {
      const id = form.dataset.workspaceAgent;
      const message = form.elements.message.value.trim();
      if (!message) return;
      const { answer } = await post(`/agents/${id}/messages`, { message });
      usage.chatInitiated({
        agent: { type: "workspace_agent", id, name: form.dataset.name },
        source: "button",
        model: page.runtime,
        message,
      });
      outcome(id).replaceChildren(h("p", {}, answer));
    }),
  );
