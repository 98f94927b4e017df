// The composer on the workspace's home.

import { $, $$, handle, page, post, sendOnEnter } from "./page.js";
import * as usage from "./usage.js";

const form = $("#composer");
const message = $("textarea", form);
const files = $("[type=file]", form);

sendOnEnter(message);

for (const example of $$("[data-example]", form))
  example.addEventListener("click", () => {
    message.value = example.textContent;
    message.focus();
  });

files.addEventListener("change", () => {
  const count = files.files.length;
  $("[data-attached]", form).textContent = count ? `${count} attached` : "Attach";
});

form.addEventListener(
  "submit",
  handle(async () => {
    const model = page.runtimes.find((each) => each.id === form.elements.runtime.value);
    const text = message.value.trim();
    if (!text) return;
    // Only how many files there are is told; a demo has no use for what is in them.
    const app = await post("/apps", {
      message: text,
      runtime: model.id,
      attachments: files.files.length,
    });
    usage.chatInitiated({
      app,
      agent: { type: "builder", id: "builder", name: "Builder" },
      source: form.dataset.source,
      model,
      message: text,
      skills: $$("[name=skill]:checked", form).length,
      files: files.files.length,
    });
    location.assign(app.to);
  }),
);
