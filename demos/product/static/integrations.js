// Setting one integration up: opening the page begins it, connecting ends it.

import { $, handle, page, post } from "./page.js";
import * as usage from "./usage.js";

const { integration, surface } = page;
const form = $("#setup");

if (!integration.connected) usage.setupStarted(integration, surface);

form?.addEventListener(
  "submit",
  handle(async () => {
    // What was typed as a secret stays in the form.
    await post(`/settings/integrations/${integration.slug}`);
    usage.setupCompleted(integration, surface);
    location.reload();
  }),
);
