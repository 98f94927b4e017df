// The rail, the drawer it becomes on a phone, the menus and the import dialog.

import { $, $$, handle, page, post } from "./page.js";
import * as usage from "./usage.js";

if (page.fresh) usage.onboardingFinished();

for (const entry of $$("[data-target]"))
  entry.addEventListener("click", () =>
    usage.sidebarClicked(entry.dataset.target, entry.dataset.publishStatus),
  );

// A phone has the sections of the settings in one line to scroll: the open one is in sight.
$(".sections [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// The drawer: the rail itself, moved in. Out of sight it is also out of the tab order.

const rail = $("#rail");
const scrim = $("[data-close-drawer]");
const opener = $("[data-open-drawer]");
const narrow = matchMedia("(max-width: 860px)");

function drawer(open) {
  rail.classList.toggle("open", open);
  rail.inert = narrow.matches && !open;
  scrim.hidden = !open;
  opener.setAttribute("aria-expanded", `${open}`);
  if (open) $("a, button", rail).focus();
}

function closeDrawer() {
  if (!rail.classList.contains("open")) return;
  drawer(false);
  opener.focus();
}

drawer(false);
narrow.addEventListener("change", () => drawer(false));
opener.addEventListener("click", () => drawer(true));
scrim.addEventListener("click", closeDrawer);
document.addEventListener("keydown", (event) => {
  // Escape belongs to an open menu first.
  if (event.key === "Escape" && !$("[popover]:popover-open")) closeDrawer();
});

// A dialog over a menu: the menu has done its work.
for (const button of $$("[popover] button"))
  button.addEventListener("click", () => button.closest("[popover]").hidePopover());

// Import

const dialog = $("#import");
const drop = $(".drop", dialog);

async function bringIn(trigger, name) {
  const app = await post("/imports", { name });
  usage.importTriggered(trigger, app);
  location.assign(app.to);
}

for (const button of $$("[data-import]"))
  button.addEventListener("click", () => {
    usage.importClicked(button.dataset.import);
    dialog.showModal();
  });

$("[data-close]", dialog).addEventListener("click", () => dialog.close());
$("[data-sample]", dialog).addEventListener(
  "click",
  handle(() => bringIn("button", "field-journal.zip")),
);
$("input", drop).addEventListener(
  "change",
  handle(async (event) => {
    const [file] = event.target.files;
    if (file) await bringIn("upload_zip", file.name);
  }),
);

for (const type of ["dragenter", "dragover"])
  drop.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener(
  "drop",
  handle(async (event) => {
    drop.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) await bringIn("drop", file.name);
  }),
);
dialog.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) handle(() => bringIn("paste", file.name))(event);
});
