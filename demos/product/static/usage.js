// Every product event the pages capture, one function each. They hand over all they know, names and
// texts included: what may leave is decided by the analytics, never here. Page views and the page's
// context are the client's own work.

import { page } from "./page.js";

const LONGEST_MESSAGE = 2000;

// The client may be blocked or switched off; the product works the same without it.
function capture(name, properties) {
  window.secondAnalytics?.capture(name, { workspace_id: page.workspace, ...properties });
}

const sum = (list, count) => list.reduce((total, each) => total + count(each), 0);
const length = (text) => (text || "").length;
const unique = (list) => [...new Set(list.filter(Boolean))];

const runtime = (each) => ({
  runtime_id: each.id,
  runtime_model: each.model,
  runtime_model_family: each.family,
});

const text = (key, value) => ({
  [key]: value.slice(0, LONGEST_MESSAGE),
  [`${key}_length`]: value.length,
  [`${key}_included`]: true,
  [`${key}_truncated`]: value.length > LONGEST_MESSAGE,
});

export const onboardingFinished = () =>
  capture("onboarding finished", { user_id: page.user, workspace_role: page.role });

export const sidebarClicked = (target, status) =>
  capture("sidebar clicked", { target, ...(status && { publish_status: status }) });

export const importClicked = (source) => capture("import existing app clicked", { source });

export const importTriggered = (trigger, app) =>
  capture("import existing app triggered", { trigger, app_id: app.id });

export const chatInitiated = ({ app, agent, source, model, message, skills = 0, files = 0 }) =>
  capture("chat initiated", {
    ...(app && { app_id: app.id, app_name: app.name }),
    agent_type: agent.type,
    agent_id: agent.id,
    agent_name: agent.name,
    source,
    ...runtime(model),
    selected_skill_count: skills,
    attachment_count: files,
    ...text("message", message),
  });

const build = (app, entry) => ({
  app_id: app.id,
  run_id: entry.run_id,
  tool_call_id: entry.tool_call_id,
  ...runtime(app.runtime),
  ...entry.counts,
  duration_ms: entry.duration_ms,
});

const files = (bundle) => ({
  file_count: bundle.file_count,
  total_bytes: bundle.total_bytes,
  has_warning: bundle.warning !== null,
});

export const buildCompleted = (app, entry) =>
  capture("build completed", { ...build(app, entry), ...files(entry.bundle) });

export const buildFailed = (app, entry) =>
  capture("build failed", {
    ...build(app, entry),
    failure_phase: entry.fault.phase,
    error_code: entry.fault.code,
    error: entry.fault.text,
  });

export const appDisplayed = (app) =>
  capture("app displayed", { app_id: app.id, ...files(app.bundle) });

// Approvals: what is shown depends on the card's type, what is answered hardly does.

const toolsOf = (agents) => agents.flatMap((agent) => agent.tools);

const shown = {
  suggestions: (card) => ({
    suggestions: card.items,
    suggestion_titles: card.items.map((item) => item.title),
    suggestion_subtitles: card.items.map((item) => item.subtitle),
    suggestion_count: card.items.length,
    suggestion_detail_count: card.items.filter((item) => item.subtitle).length,
  }),
  plan: ({ plan }) => ({
    plan_title: plan.title,
    plan_overview: plan.overview,
    plan_features: plan.features,
    plan_feature_names: plan.features,
    plan_data_flow: plan.data_flow,
    plan_agents: plan.agents,
    plan_backend: plan.backend,
    plan_has_title: length(plan.title) > 0,
    plan_has_overview: length(plan.overview) > 0,
    plan_has_features: plan.features.length > 0,
    plan_has_data_flow: length(plan.data_flow) > 0,
    plan_has_agents: length(plan.agents) > 0,
    plan_has_backend: length(plan.backend) > 0,
    plan_feature_count: plan.features.length,
    plan_agent_count: plan.agents ? 1 : 0,
    plan_overview_length: length(plan.overview),
    plan_data_flow_length: length(plan.data_flow),
    plan_agents_length: length(plan.agents),
    plan_backend_length: length(plan.backend),
  }),
  agents: ({ agents, tools }) => ({
    agents: agents.map(({ id, name, about }) => ({ id, name, about })),
    agent_ids: agents.map((agent) => agent.id),
    agent_names: agents.map((agent) => agent.name),
    agent_descriptions: agents.map((agent) => agent.about),
    agent_system_prompts: agents.map((agent) => agent.system_prompt),
    agent_tool_names: toolsOf(agents).map((tool) => tool.name),
    agent_tool_display_names: toolsOf(agents).map((tool) => tool.label),
    agent_integration_names: agents.flatMap((agent) => agent.integrations),
    agent_integration_domains: agents.flatMap((agent) => agent.domains),
    agent_data_collection_names: agents.flatMap((agent) => agent.collections),
    app_tool_names: tools.map((tool) => tool.name),
    app_tool_display_names: tools.map((tool) => tool.label),
    app_tool_integration_names: unique(tools.map((tool) => tool.integration)),
    app_tool_integration_domains: unique(tools.map((tool) => tool.domain)),
    agent_count: agents.length,
    agent_detail_count: agents.filter((agent) => agent.about).length,
    app_tool_count: tools.length,
    app_tool_detail_count: tools.filter((tool) => tool.label).length,
    agent_tool_count: toolsOf(agents).length,
    agent_enabled_tool_count: toolsOf(agents).filter((tool) => tool.enabled).length,
    agent_recommended_tool_count: toolsOf(agents).filter((tool) => tool.recommended).length,
    agent_custom_tool_count: toolsOf(agents).filter((tool) => tool.kind === "custom").length,
    agent_builtin_tool_count: toolsOf(agents).filter((tool) => tool.kind === "builtin").length,
    agent_integration_count: sum(agents, (agent) => agent.integrations.length),
    agent_data_collection_count: sum(agents, (agent) => agent.collections.length),
  }),
};

export function approvalShown(app, card) {
  const of = { app_id: app.id, tool_call_id: card.tool_call_id };
  if (card.type === "suggestions") {
    const { suggestions, suggestion_titles, suggestion_count } = shown.suggestions(card);
    capture("showed suggestions tool called", {
      ...of,
      suggestions,
      suggestion_titles,
      suggestion_count,
    });
  }
  capture("approval shown", { ...of, approval_type: card.type, ...shown[card.type](card) });
}

export function approvalActed(app, card, action, word) {
  const of = { app_id: app.id, tool_call_id: card.tool_call_id };
  const agents = card.agents || [];
  const sizes = { agent_count: agents.length, app_tool_count: (card.tools || []).length };
  capture("approval acted", {
    ...of,
    approval_type: card.type,
    action,
    approval_mode: "manual",
    ...sizes,
    suggestion_count: (card.items || []).length,
    feedback_length: action === "requested_changes" ? word.length : 0,
  });
  if (action === "picked_suggestion")
    capture("suggestion picked", {
      ...of,
      suggestion_title: word,
      suggestion_titles: card.items.map((item) => item.title),
    });
  if (card.type === "agents" && action === "approved")
    capture("agents approved", {
      ...of,
      approval_mode: "manual",
      ...sizes,
      agent_ids: agents.map((agent) => agent.id),
      agent_names: agents.map((agent) => agent.name),
      agents: agents.map(({ id, name, about }) => ({ id, name, about })),
    });
}

// Agents of an app

const agentOf = (app, agent, run) => ({
  app_id: app.id,
  run_id: run.id,
  agent_id: agent.id,
  agent_name: agent.name,
  source_version: app.version,
});

export const agentTriggered = (app, agent, run) =>
  capture("app agent triggered", { ...agentOf(app, agent, run), ...text("prompt", run.prompt) });

export const agentFinished = (app, agent, run) =>
  capture("app agent finished", { ...agentOf(app, agent, run), duration_ms: run.duration_ms });

export const agentError = (app, agent, run) =>
  capture("app agent error", {
    ...agentOf(app, agent, run),
    ...text("prompt", run.prompt),
    phase: run.fault.phase,
    status_code: run.fault.status,
    duration_ms: run.duration_ms,
    error: run.fault.text,
  });

// Integrations

const setup = (integration, surface) => ({
  can_manage_integrations: page.is_admin,
  target_surface: surface,
  integration_count: 1,
  permission_count: integration.permissions.length,
  required_secret_count: integration.required_secrets.length,
  optional_secret_count: integration.optional_secrets.length,
  auth_kind: integration.auth,
  integration_names: [integration.name],
  integration_domains: [integration.domain],
});

export const setupStarted = (integration, surface) =>
  capture("integration setup started", setup(integration, surface));

export const setupCompleted = (integration, surface) =>
  capture("integration setup completed", setup(integration, surface));
