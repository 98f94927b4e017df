"""The invented teams: people, workspaces, integrations, and what Second proposes for a prompt.

Data only, and all of it made up: addresses end in `.example`, which nobody can register (RFC 2606).
What happens to it is in `story.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

AuthKind = Literal["oauth", "static_secret", "mixed", "none"]


@dataclass(frozen=True)
class Invitation:
    """A person as the demo begins: who they are, where they belong, what to say on their card."""

    id: str
    name: str
    email: str
    title: str
    about: str
    roles: tuple[tuple[str, str], ...]
    onboarded: bool = True


@dataclass(frozen=True)
class Integration:
    """A service an app or an agent may need before it can work."""

    slug: str
    name: str
    domain: str
    about: str
    auth: AuthKind
    permissions: tuple[str, ...]
    required_secrets: tuple[str, ...] = ()
    optional_secrets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tool:
    """Something an app or an agent can do."""

    name: str
    label: str
    kind: Literal["builtin", "custom", "integration"] = "builtin"
    recommended: bool = False
    enabled: bool = True
    integration: str | None = None


@dataclass(frozen=True)
class Agent:
    """An agent as it is proposed, approved and run."""

    slug: str
    name: str
    about: str
    system_prompt: str
    answer: str
    tools: tuple[Tool, ...] = ()
    integrations: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suggestion:
    """One way to begin."""

    title: str
    subtitle: str


@dataclass(frozen=True)
class Plan:
    """What Second intends to build."""

    title: str
    overview: str
    features: tuple[str, ...]
    data_flow: str
    agents: str
    backend: str


@dataclass(frozen=True)
class Preview:
    """What the finished app shows: three figures and a table."""

    figures: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Recipe:
    """What a prompt with one of these words leads to. No words: what any other prompt leads to."""

    words: tuple[str, ...]
    name: str
    about: str
    suggestions: tuple[Suggestion, ...]
    plan: Plan
    agents: tuple[Agent, ...]
    tools: tuple[Tool, ...]
    preview: Preview
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runtime:
    """What writes the app: the runtime's own id, its model, the model's family."""

    id: str
    model: str
    family: str


RUNTIMES: Final = (
    Runtime("claude-code", "claude-sonnet-4-5", "claude"),
    Runtime("codex", "gpt-5 mini", "gpt"),
    Runtime("gemini-cli", "gemini-2.5-pro", "gemini"),
)

SKILLS: Final = ("Spreadsheet import", "Charts", "Weekly digest")

WORKSPACES: Final = {"kestrel-coffee": "Kestrel Coffee", "tidewater-labs": "Tidewater Labs"}

PEOPLE: Final = (
    Invitation(
        "65f1c0ffee4b1d2a7e90a001",
        "Maren Okafor",
        "maren@kestrel-coffee.example",
        "Runs operations at Kestrel Coffee",
        "Admin of one workspace, member of another. Apps, agents and a review are waiting.",
        (("kestrel-coffee", "admin"), ("tidewater-labs", "member")),
    ),
    Invitation(
        "65f1c0ffee4b1d2a7e90a002",
        "Tomas Lindqvist",
        "tomas@tidewater-labs.example",
        "Field scientist at Tidewater Labs",
        "Member of one workspace, with nothing built in it yet.",
        (("tidewater-labs", "member"),),
    ),
    Invitation(
        "65f1c0ffee4b1d2a7e90a003",
        "Ines Varga",
        "ines@kestrel-coffee.example",
        "Joined Kestrel Coffee this morning",
        "Invited, and not onboarded yet: no event is taken from her until she is.",
        (("kestrel-coffee", "member"),),
        onboarded=False,
    ),
)

TEAMS: Final = {
    "kestrel-coffee": (
        ("Shops", "Five counters and the people who run them", 14),
        ("Roastery", "Green stock, roasting and packing", 6),
        ("Office", "Buying, books and everything else", 4),
    ),
    "tidewater-labs": (
        ("Field", "Sampling along the estuary", 8),
        ("Bench", "Assays and instruments", 5),
    ),
}

INTEGRATIONS: Final = {
    each.slug: each
    for each in (
        Integration(
            "ledgerly",
            "Ledgerly",
            "ledgerly.example",
            "Invoices, payments and what is overdue",
            "static_secret",
            ("Read invoices", "Read customers", "Write payment notes"),
            required_secrets=("API key",),
            optional_secrets=("Webhook secret",),
        ),
        Integration(
            "parcelroom",
            "Parcelroom",
            "parcelroom.example",
            "Labels, parcels and where they are",
            "oauth",
            ("Read parcels", "Create labels"),
        ),
        Integration(
            "chatterbox",
            "Chatterbox",
            "chatterbox.example",
            "Team chat: post to channels, read replies",
            "oauth",
            ("Post messages", "Read channels"),
        ),
        Integration(
            "gridsheet",
            "Gridsheet",
            "gridsheet.example",
            "Shared spreadsheets",
            "mixed",
            ("Read sheets", "Write sheets"),
            optional_secrets=("Service account",),
        ),
        Integration(
            "skyline",
            "Skyline",
            "skyline.example",
            "Weather and tides, open to everyone",
            "none",
            ("Read forecasts",),
        ),
    )
}

WORKSPACE_AGENTS: Final = (
    Agent(
        "morning-brief",
        "Morning brief",
        "Reads what changed overnight in every app and says it in five lines.",
        "Read the change log of each app. Write five lines, the most urgent first.",
        "Three things since yesterday: stock of Yirgacheffe fell below two weeks, one shift on "
        "Saturday is open, and no invoice became overdue.",
        tools=(Tool("read_changes", "Read changes", recommended=True),),
        collections=("change_log",),
    ),
    Agent(
        "data-tidier",
        "Data tidier",
        "Finds duplicates and empty fields, and proposes what to do with each.",
        "Look for rows that mean the same thing. Propose, never change.",
        "I found four rows that look like the same supplier. Nothing was changed: open the list "
        "to decide about each.",
        tools=(Tool("scan_rows", "Scan rows", recommended=True),),
        collections=("suppliers",),
    ),
)

_STOCK_AGENT = Agent(
    "reorder-watch",
    "Reorder watch",
    "Looks at stock every evening and drafts an order when something runs low.",
    "Compare stock with two weeks of use. Draft an order, never send one.",
    "Two coffees are below two weeks of use: Yirgacheffe (9 days) and Huila (12 days). I drafted "
    "an order of 60 kg for you to look at.",
    tools=(
        Tool("read_stock", "Read stock", recommended=True),
        Tool("draft_order", "Draft an order", kind="custom"),
    ),
    collections=("stock", "suppliers"),
)

_INVOICE_AGENT = Agent(
    "reminder-writer",
    "Reminder writer",
    "Writes a friendly reminder for each overdue invoice and waits for your word.",
    "Write one short, friendly reminder for each invoice overdue by a week. Never send.",
    "Two invoices are overdue by more than a week. Both reminders wait in Drafts.",
    tools=(
        Tool(
            "list_invoices",
            "List invoices",
            kind="integration",
            recommended=True,
            integration="ledgerly",
        ),
        Tool("draft_reminder", "Draft a reminder", kind="custom"),
        Tool("send_mail", "Send mail", enabled=False),
    ),
    integrations=("ledgerly",),
    collections=("reminders",),
)

_SHIFT_AGENT = Agent(
    "gap-finder",
    "Gap finder",
    "Finds open shifts and asks who could take them.",
    "Find shifts without a person. Ask those who are free and closest to their hours.",
    "Saturday 7 to 11 at the Quay is open. Two people are free and below their hours.",
    tools=(Tool("read_shifts", "Read shifts", recommended=True),),
    collections=("shifts",),
)

_NOTES_AGENT = Agent(
    "summary-writer",
    "Summary writer",
    "Turns the week's entries into a page anyone can read in two minutes.",
    "Group the week's entries by subject. One paragraph each, plain words.",
    "The week in short: eleven entries, two questions open, one decision to make on Monday.",
    tools=(
        Tool("read_entries", "Read entries", recommended=True),
        Tool("write_page", "Write a page", kind="custom"),
    ),
    collections=("entries",),
)

RECIPES: Final = (
    Recipe(
        words=("invoice", "ledgerly", "overdue", "payment"),
        name="Invoice tracker",
        about="What is open, what is late, and a reminder ready for each",
        suggestions=(
            Suggestion("Start with what is late", "One list, the oldest first"),
            Suggestion("Start with customers", "Each with what they owe"),
            Suggestion("Start with reminders", "Drafts that wait for your word"),
        ),
        plan=Plan(
            "Invoice tracker",
            "Reads open invoices from Ledgerly each morning and lists them by how late they are.",
            ("Overdue list", "Customer page", "Reminder drafts"),
            "Ledgerly → invoices, once an hour. Reminders stay here until someone sends them.",
            "One agent drafts reminders. It can't send.",
            "A table of invoices, one of reminders, and an hourly job.",
        ),
        agents=(_INVOICE_AGENT,),
        tools=(
            Tool("sync_invoices", "Sync invoices", kind="integration", integration="ledgerly"),
            Tool("export_csv", "Export as CSV"),
        ),
        preview=Preview(
            (("Open", "23"), ("Late", "4"), ("Owed", "6,180")),
            ("Invoice", "Customer", "Due", "Amount"),
            (
                ("2041", "The Quay Deli", "12 days late", "1,240"),
                ("2038", "Marrow & Co", "9 days late", "860"),
                ("2052", "Fern Hotel", "2 days late", "2,310"),
                ("2057", "Oxbow Books", "today", "410"),
            ),
        ),
        needs=("ledgerly",),
    ),
    Recipe(
        words=("stock", "bean", "inventory", "reorder", "low"),
        name="Stock watch",
        about="Counts what is on the shelf and says when it runs low",
        suggestions=(
            Suggestion("Start with the count", "A page to count on, phone first"),
            Suggestion("Start with the warning", "A list of what runs low"),
            Suggestion("Start with suppliers", "Who delivers what, and how fast"),
        ),
        plan=Plan(
            "Stock watch",
            "A count for each coffee and shop, with a warning two weeks before it runs out.",
            ("Count page", "Low-stock list", "Order drafts", "Weekly chart"),
            "People count on their phones; use is worked out from two counts.",
            "One agent drafts orders in the evening.",
            "Three tables: coffees, counts, orders.",
        ),
        agents=(_STOCK_AGENT,),
        tools=(Tool("record_count", "Record a count"), Tool("export_csv", "Export as CSV")),
        preview=Preview(
            (("Coffees", "14"), ("Running low", "2"), ("Counted today", "5 shops")),
            ("Coffee", "On the shelf", "Lasts", "State"),
            (
                ("Yirgacheffe", "18 kg", "9 days", "Low"),
                ("Huila", "26 kg", "12 days", "Low"),
                ("Sidamo", "64 kg", "31 days", "Fine"),
                ("House blend", "140 kg", "24 days", "Fine"),
            ),
        ),
    ),
    Recipe(
        words=("rota", "shift", "schedule", "roster"),
        name="Shift planner",
        about="Who works where and when, and which shift is still open",
        suggestions=(
            Suggestion("Start with the week", "One page, all shops"),
            Suggestion("Start with open shifts", "What still needs a person"),
            Suggestion("Start with wishes", "When people can and can't"),
        ),
        plan=Plan(
            "Shift planner",
            "A week for each shop; people see their own, leads fill the gaps.",
            ("Week page", "Open shifts", "Swap requests"),
            "Leads plan, people ask to swap, the planner shows what is still open.",
            "One agent looks for gaps each afternoon.",
            "Two tables: shifts and swaps.",
        ),
        agents=(_SHIFT_AGENT,),
        tools=(Tool("swap_shift", "Swap a shift"),),
        preview=Preview(
            (("This week", "62 shifts"), ("Open", "1"), ("Swaps", "3")),
            ("Day", "Shop", "Time", "Who"),
            (
                ("Friday", "Market Row", "7 to 15", "Ada, Bo"),
                ("Saturday", "The Quay", "7 to 11", "open"),
                ("Saturday", "Market Row", "8 to 16", "Bo, Noor"),
                ("Sunday", "Station", "8 to 14", "Ada"),
            ),
        ),
    ),
    Recipe(
        words=(),
        name="Notebook",
        about="Entries, who wrote them, and a page for the week",
        suggestions=(
            Suggestion("Start with the list", "Everything in one place, newest first"),
            Suggestion("Start with the form", "The quickest way to add an entry"),
            Suggestion("Start with the week", "A page that sums up what came in"),
        ),
        plan=Plan(
            "Notebook",
            "Entries with a subject and a date, a list to search, and a page for each week.",
            ("Entry form", "Searchable list", "Week page"),
            "People write entries; the week page is made from them on Friday.",
            "One agent writes the week page.",
            "One table of entries, one of pages.",
        ),
        agents=(_NOTES_AGENT,),
        tools=(Tool("add_entry", "Add an entry"),),
        preview=Preview(
            (("Entries", "11"), ("Open questions", "2"), ("Writers", "4")),
            ("Date", "Subject", "Entry", "By"),
            (
                ("Mon", "Station 3", "Turbidity above the spring mean", "Bo"),
                ("Tue", "Station 1", "Probe replaced, second reading fine", "Noor"),
                ("Wed", "Bench", "Blank drifts after an hour", "Ada"),
                ("Thu", "Station 3", "Back to normal at low tide", "Bo"),
            ),
        ),
    ),
)

EXAMPLE_PROMPTS: Final = (
    "A stock count for our five shops that warns us before beans run low",
    "An invoice tracker that reads Ledgerly and drafts reminders",
    "A shift planner where people can ask to swap",
)
