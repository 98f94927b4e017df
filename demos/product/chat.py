"""One app and the conversation that makes it: suggestions, plan, agents, builds, runs.

A thread is a list of entries; an entry is what a person sees as a message or a card. Time comes in
as a number of seconds, so a build "takes" as long as it is told to and nothing runs in between.
`news` is what happened and no browser has been told yet: it is handed out once, which is how a
page knows that this build completed now and not yesterday.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Set
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias

from demos.product.sample import (
    INTEGRATIONS,
    Agent,
    Plan,
    Preview,
    Recipe,
    Runtime,
    Suggestion,
    Tool,
)

JSON: TypeAlias = dict[str, Any]

STEPS: Final = (
    "Reading the plan",
    "Shaping the data",
    "Writing pages",
    "Bundling",
    "Starting the app",
)


class NotHere(LookupError):
    """There is no such thing, or not for this person."""


class Settled(Exception):
    """This card was answered before, or the app is busy."""


@dataclass
class Message:
    """What a person or Second says."""

    id: str
    who: Literal["person", "second"]
    text: str
    type: str = "message"


@dataclass
class SuggestionsCard:
    """Ways to begin; one is picked."""

    id: str
    tool_call_id: str
    items: tuple[Suggestion, ...]
    picked: str | None = None
    type: str = "suggestions"

    @property
    def open(self) -> bool:
        return self.picked is None


@dataclass
class PlanCard:
    """What is to be built; approved, or sent back with a word why."""

    id: str
    tool_call_id: str
    plan: Plan
    state: Literal["open", "approved", "requested_changes"] = "open"
    type: str = "plan"

    @property
    def open(self) -> bool:
        return self.state == "open"


@dataclass
class AgentsCard:
    """Which agents and tools the app may have."""

    id: str
    tool_call_id: str
    agents: tuple[JSON, ...]
    tools: tuple[JSON, ...]
    state: Literal["open", "approved", "requested_changes"] = "open"
    type: str = "agents"

    @property
    def open(self) -> bool:
        return self.state == "open"


@dataclass(frozen=True)
class Fault:
    """Why a build or a run failed: a code, where, a sentence, and what is missing."""

    code: str
    phase: str
    text: str
    integration: str
    status: int = 424


@dataclass(frozen=True)
class Bundle:
    """What a build leaves behind."""

    file_count: int
    total_bytes: int
    warning: str | None


@dataclass
class Build:
    """One build: under way until its seconds are over, then done or failed."""

    id: str
    run_id: str
    tool_call_id: str
    started: float
    seconds: float
    fault: Fault | None
    bundle: Bundle | None = None
    counts: JSON = field(default_factory=dict)
    settled: bool = False
    type: str = "build"
    open: bool = False

    def view(self, now: float) -> JSON:
        """Return the card as the page needs it: steps with their state, progress, the result."""
        progress = 1.0 if self.settled else min(1.0, max(0.0, now - self.started) / self.seconds)
        last = len(STEPS) - 1
        # A faulty app stops at its last step; a good one ticks all of them.
        ticked = last if self.settled and self.fault else int(progress * len(STEPS))
        state = "running" if not self.settled else "failed" if self.fault else "done"
        return {
            "id": self.id,
            "type": self.type,
            "run_id": self.run_id,
            "tool_call_id": self.tool_call_id,
            "state": state,
            "progress": round(progress, 2),
            "steps": [
                {"label": label, "state": _step_state(index, ticked, state)}
                for index, label in enumerate(STEPS)
            ],
            "fault": asdict(self.fault) if self.fault and self.settled else None,
            "bundle": asdict(self.bundle) if self.bundle and self.settled else None,
            "counts": self.counts,
            "duration_ms": round(self.seconds * 1000),
        }


def _step_state(index: int, ticked: int, state: str) -> str:
    if index < ticked:
        return "done"
    if index > ticked:
        return "waiting"
    return {"running": "running", "failed": "failed"}.get(state, "done")


@dataclass
class Run:
    """One run of an agent of the app."""

    id: str
    agent_id: str
    prompt: str
    started: float
    seconds: float
    answer: str
    fault: Fault | None
    settled: bool = False

    def view(self) -> JSON:
        """Return the run as the page needs it; what it says only once it is over."""
        state = "running" if not self.settled else "failed" if self.fault else "done"
        return {
            "id": self.id,
            "agent_id": self.agent_id,
            "prompt": self.prompt,
            "state": state,
            "answer": self.answer if state == "done" else None,
            "fault": asdict(self.fault) if self.fault and self.settled else None,
            "duration_ms": round(self.seconds * 1000),
        }


Entry: TypeAlias = Message | SuggestionsCard | PlanCard | AgentsCard | Build


@dataclass
class App:
    """An app of a workspace, with its thread.

    Args:
        connected: the workspace's connected integrations, shared with it.
        new_id: makes the next id, 24 hex digits.
        build_seconds: how long a build takes; a run takes half of it.
    """

    id: str
    name: str
    recipe: Recipe
    runtime: Runtime
    maker: str
    connected: Set[str]
    new_id: Callable[[], str]
    build_seconds: float
    edited: str = "just now"
    published: bool = False
    attachments: int = 0
    imported: bool = False
    version: int = 0
    bundle: Bundle | None = None
    agents_approved: bool = False
    thread: list[Entry] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    news: list[JSON] = field(default_factory=list)

    # What a person does

    def begin(self, prompt: str) -> None:
        """Open the thread with a person's prompt; Second answers with suggestions."""
        self.say("person", prompt)
        self.say("second", "Here are three ways to begin. Pick the one closest to what you need.")
        self.show(SuggestionsCard(self.new_id(), self.new_id(), self.recipe.suggestions))

    def act(self, entry_id: str, action: str, now: float, *, word: str = "") -> None:
        """Answer the open card with this id.

        Args:
            action: `picked_suggestion`, `approved` or `requested_changes`.
            word: the suggestion's title, or what should change.

        Raises:
            NotHere: there is no such card, or it does not know the action.
            Settled: it was answered before.
        """
        card = next((entry for entry in self.thread if entry.id == entry_id), None)
        if card is None:
            raise NotHere(entry_id)
        answer = _ANSWERS.get((card.type, action))
        if answer is None:
            raise NotHere(action)
        if isinstance(card, Message) or not card.open:
            raise Settled(entry_id)
        answer(self, card, word, now)
        self.edited = "just now"

    def ask(self, text: str, now: float) -> None:
        """Take a further message: a built app is built again with it."""
        if self.busy or any(card.open for card in self.cards):
            raise Settled(self.id)
        self.say("person", text)
        self.say("second", "I'll build that in now.")
        self.build(now)

    def build(self, now: float) -> None:
        """Start a build; it fails at the end if an integration the app needs is not connected."""
        if self.busy or not self.agents_approved:
            raise Settled(self.id)
        missing = next((slug for slug in self.recipe.needs if slug not in self.connected), None)
        self.thread.append(
            Build(
                self.new_id(),
                self.new_id(),
                self.new_id(),
                now,
                self.build_seconds,
                _not_connected("startup", missing) if missing else None,
            )
        )

    def run(self, agent_id: str, prompt: str, now: float) -> Run:
        """Start an agent; it fails if an integration of its own is not connected."""
        agent = self.agent(agent_id)
        missing = next((slug for slug in agent.integrations if slug not in self.connected), None)
        fault = _not_connected("start", missing) if missing else None
        run = Run(self.new_id(), agent_id, prompt, now, self.build_seconds / 2, agent.answer, fault)
        self.runs.append(run)
        return run

    # What happens then

    def settle(self, now: float) -> None:
        """End what has had its time, and note it as news."""
        for entry in tuple(self.thread):
            if (
                isinstance(entry, Build)
                and not entry.settled
                and now - entry.started >= entry.seconds
            ):
                self._end_build(entry)
        for run in self.runs:
            if not run.settled and now - run.started >= run.seconds:
                run.settled = True
                self.news.append({"kind": "run_over", "run": run.id})

    def _end_build(self, build: Build) -> None:
        build.settled = True
        if build.fault is None:
            self.version += 1
            build.bundle = self.bundle = self._bundle()
            text = f"{self.name} is ready. Open it, or tell me what to change."
        else:
            text = "The build stopped. Once that is put right, try again."
        self.say("second", text)
        build.counts = self.counts()
        self.news.append({"kind": "build_over", "entry": build.id})

    def _bundle(self) -> Bundle:
        files = 12 + 4 * len(self.recipe.plan.features) + 3 * self.version
        warning = None
        if self.imported:
            warning = "The imported app had no lock file, so versions were chosen for it."
        elif self.attachments:
            warning = "An attached file was not used."
        return Bundle(files, 31_400 + 6_872 * files, warning)

    # What is there

    @property
    def cards(self) -> list[SuggestionsCard | PlanCard | AgentsCard]:
        """The cards of the thread that ask for an answer, answered ones included."""
        asking = (SuggestionsCard, PlanCard, AgentsCard)
        return [entry for entry in self.thread if isinstance(entry, asking)]

    @property
    def busy(self) -> bool:
        """Whether a build is under way."""
        return any(isinstance(entry, Build) and not entry.settled for entry in self.thread)

    @property
    def state(self) -> Literal["building", "review", "ready", "failed", "draft"]:
        """One word for a list of apps."""
        if self.busy:
            return "building"
        if any(card.open for card in self.cards):
            return "review"
        builds = [entry for entry in self.thread if isinstance(entry, Build)]
        if builds and builds[-1].fault:
            return "failed"
        return "ready" if self.bundle else "draft"

    @property
    def has_chat(self) -> bool:
        """Whether a person has said anything yet: an imported app starts without."""
        return any(isinstance(entry, Message) and entry.who == "person" for entry in self.thread)

    @property
    def preview(self) -> Preview:
        """What the app shows when opened."""
        return self.recipe.preview

    def agent_id(self, agent: Agent) -> str:
        """Return the id this agent has in this app."""
        return hashlib.sha256(f"{self.id} {agent.slug}".encode()).hexdigest()[:24]

    def agent(self, agent_id: str) -> Agent:
        """Return the app's agent with this id."""
        for agent in self.recipe.agents:
            if self.agents_approved and self.agent_id(agent) == agent_id:
                return agent
        raise NotHere(agent_id)

    def agent_view(self, agent: Agent) -> JSON:
        """Return an agent as the page and the events need it."""
        shown = asdict(agent)
        del shown["answer"]  # known once the agent has run
        return {
            "id": self.agent_id(agent),
            **shown,
            "domains": [INTEGRATIONS[slug].domain for slug in agent.integrations],
        }

    def counts(self) -> JSON:
        """Return how much was said and done in the thread so far."""
        messages = [entry for entry in self.thread if isinstance(entry, Message)]
        mine = sum(message.who == "person" for message in messages)
        return {
            "message_count": len(messages),
            "user_message_count": mine,
            "assistant_message_count": len(messages) - mine,
            "tool_call_count": len(self.thread) - len(messages),
            "attachment_count": self.attachments,
        }

    def view(self, now: float) -> JSON:
        """Return the app and its thread as the page needs them."""
        agents = self.recipe.agents if self.agents_approved else ()
        return {
            "app": {
                "id": self.id,
                "name": self.name,
                "state": self.state,
                "version": self.version,
                "published": self.published,
                "bundle": asdict(self.bundle) if self.bundle else None,
                "runtime": asdict(self.runtime),
                "preview": asdict(self.preview),
                "has_chat": self.has_chat,
                "attachments": self.attachments,
            },
            "thread": [
                entry.view(now)
                if isinstance(entry, Build)
                else {**asdict(entry), "open": getattr(entry, "open", False)}
                for entry in self.thread
            ],
            "agents": [self.agent_view(agent) for agent in agents],
            "runs": [run.view() for run in self.runs],
            "busy": self.busy or any(not run.settled for run in self.runs),
        }

    def catch_up(self, now: float) -> JSON:
        """Return the view, and with it the news, which is then no news any more."""
        self.settle(now)
        news, self.news = self.news, []
        return {**self.view(now), "news": news}

    def say(self, who: Literal["person", "second"], text: str) -> None:
        """Add a message."""
        self.thread.append(Message(self.new_id(), who, text))

    def show(self, card: SuggestionsCard | PlanCard | AgentsCard) -> None:
        """Add a card that asks for an answer."""
        self.thread.append(card)
        self.news.append({"kind": "card_shown", "entry": card.id})

    def show_plan(self, plan: Plan) -> None:
        """Propose this plan."""
        self.show(PlanCard(self.new_id(), self.new_id(), plan))

    def show_agents(self) -> None:
        """Propose the recipe's agents and tools."""
        self.show(
            AgentsCard(
                self.new_id(),
                self.new_id(),
                tuple(self.agent_view(agent) for agent in self.recipe.agents),
                tuple(_tool_view(tool) for tool in self.recipe.tools),
            )
        )


def _pick(app: App, card: Any, word: str, now: float) -> None:
    picked = next((item for item in card.items if item.title == word), None)
    if picked is None:
        raise NotHere(word)
    card.picked = picked.title
    app.say("second", f"“{picked.title}” it is. This is the plan:")
    app.show_plan(app.recipe.plan)


def _approve_plan(app: App, card: Any, word: str, now: float) -> None:
    card.state = "approved"
    app.say("second", "The plan stands. The app would work with this agent:")
    app.show_agents()


def _change_plan(app: App, card: Any, word: str, now: float) -> None:
    card.state = "requested_changes"
    app.say("person", word)
    app.say("second", "I changed the plan. Have another look:")
    old: Plan = card.plan
    app.show_plan(
        Plan(
            old.title,
            old.overview,
            (*old.features, f"As you asked: {word[:120]}"),
            old.data_flow,
            old.agents,
            old.backend,
        )
    )


def _approve_agents(app: App, card: Any, word: str, now: float) -> None:
    card.state = "approved"
    app.agents_approved = True
    app.say("second", "Thank you. I'm building it now.")
    app.build(now)


def _change_agents(app: App, card: Any, word: str, now: float) -> None:
    card.state = "requested_changes"
    app.say("person", word)
    app.say("second", "Noted for the agent's instructions. Have another look:")
    app.show_agents()


#: What a card does with an answer: (card, action) → what follows.
_ANSWERS: Final[dict[tuple[str, str], Callable[[App, Any, str, float], None]]] = {
    ("suggestions", "picked_suggestion"): _pick,
    ("plan", "approved"): _approve_plan,
    ("plan", "requested_changes"): _change_plan,
    ("agents", "approved"): _approve_agents,
    ("agents", "requested_changes"): _change_agents,
}


def _tool_view(tool: Tool) -> JSON:
    domain = INTEGRATIONS[tool.integration].domain if tool.integration else None
    return {**asdict(tool), "domain": domain}


def _not_connected(phase: str, slug: str) -> Fault:
    name = INTEGRATIONS[slug].name
    return Fault(
        "integration_not_connected",
        phase,
        f"{name} is not connected, so {INTEGRATIONS[slug].domain} refused to answer.",
        slug,
    )
