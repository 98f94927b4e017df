// What happened to an app since any page of it last asked. The server hands out each piece of news
// once, whichever page asks first, so each of its events is captured once.

import * as usage from "./usage.js";

const byId = (list, id) => list.find((each) => each.id === id);

const tellers = {
  card_shown: ({ app, thread }, { entry }) => usage.approvalShown(app, byId(thread, entry)),
  build_over: ({ app, thread }, { entry }) => {
    const build = byId(thread, entry);
    if (build.fault) usage.buildFailed(app, build);
    else usage.buildCompleted(app, build);
  },
  run_over: ({ app, runs, agents }, { run: id }) => {
    const run = byId(runs, id);
    const agent = byId(agents, run.agent_id);
    if (run.fault) usage.agentError(app, agent, run);
    else usage.agentFinished(app, agent, run);
  },
};

export function tell(answer) {
  for (const piece of answer.news) tellers[piece.kind](answer, piece);
}
